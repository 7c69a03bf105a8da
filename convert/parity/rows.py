"""What `make parity` measures of each network, one network per process.

Apart from the command itself, since a fresh process cannot import what `python -m` runs.
"""

import concurrent.futures
import functools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator

import torch

from convert.parity import goldens
from convert.parity.figures import Row, eval_figure, make_case, measure
from convert.parity.networks import COMPARISONS, small_config
from flaxseg.models import get_config

SEED = 1000


def twin_rows(name: str, full: bool = False) -> list[Row]:
    """Every figure of a network: small at two sizes and, if it is to be, whole in float32.

    Training in float32, which takes most of the time, is measured at the first size, and only if
    the network is `distinct` or `full` is asked for.
    """
    comparison = COMPARISONS[name]
    rows = []
    for size in comparison.sizes:
        config = small_config(name).with_image_size(size)
        case = make_case(config, size, seed=SEED, batch=comparison.batch)
        trains = size == comparison.sizes[0] and (comparison.distinct or full)
        rows.append(Row(name, size, list(measure(case, float32_training=trains))))
    if comparison.published:
        case = make_case(get_config(name), comparison.published, batches=1, batch=1)
        figure = eval_figure(case.flax("float32"), case)
        rows.append(Row(f"{name}, whole", comparison.published, [figure]))
    return rows


def rows(names: Iterable[str], jobs: int, full: bool = False) -> Iterator[Row]:
    """All rows of the networks, then those of the published ones whose numbers are at hand."""
    names = list(names)
    tasks: list[Callable[[], list[Row]]] = [
        functools.partial(twin_rows, name, full) for name in names
    ]
    if goldens.GOLDENS.is_dir():
        tasks += [
            functools.partial(goldens.rows, case)
            for case, golden in goldens.CASES.items()
            if golden.network in names
        ]
    if jobs == 1:
        results = (task() for task in tasks)
        yield from (row for result in results for row in result)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, context, one_thread) as pool:
        futures = [pool.submit(task) for task in tasks]
        for future in futures:
            yield from future.result()


def one_thread() -> None:
    """Lets torch compute on one thread.

    More gain nothing on networks this small, and stall where the machine is shared.
    """
    torch.set_num_threads(1)
