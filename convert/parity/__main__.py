"""`python -m convert.parity`: the table of how exactly Flax and PyTorch agree."""

import sys
from collections.abc import Iterable, Iterator

import torch
from rich.console import Console

from convert.parity import goldens
from convert.parity.figures import Row, eval_figure, make_case, measure
from flaxseg.models import get_config

SMALL = {"num_classes": 5, "backbone.width": 8, "channels": 32}
PUBLISHED = {**SMALL, "backbone.stem_channels": (4, 4, 8), "aux_channels": 16}
CONFIGS = {
    "ccnet": get_config(
        "ccnet", **{**SMALL, "backbone.stem_channels": (8,), "backbone.blocks": (1, 2, 1, 2)}
    ),
    "ccnet_r50": get_config("ccnet_r50", **{**PUBLISHED, "backbone.blocks": (1, 2, 1, 2)}),
    "ccnet_r101": get_config("ccnet_r101", **{**PUBLISHED, "backbone.blocks": (1, 1, 3, 1)}),
}
"""Every network, narrow and shallow enough for a laptop; no design choice is left out."""

SIZES = ((33, 47), (40, 64))
"""Odd and even, not square, no multiple of the stride and one."""

FULL_SIZE = (97, 129)
SEED = 1000


def rows() -> Iterator[Row]:
    """All figures; those of the published networks only where their numbers are at hand."""
    yield from twin_rows()
    if goldens.GOLDENS.is_dir():
        yield from goldens.golden_rows()


def twin_rows() -> Iterator[Row]:
    """Every figure of every small network at every size, and the whole `ccnet` in eval mode."""
    for network, config in CONFIGS.items():
        for size in SIZES:
            case = make_case(config, size, seed=SEED)
            for figure in measure(case, float32_training=size == SIZES[0]):
                yield Row(f"{network}, narrow", size, figure)
    case = make_case(get_config("ccnet"), FULL_SIZE, batches=1)
    yield Row("ccnet", FULL_SIZE, eval_figure(case.flax("float32"), case))


def report(measured: Iterable[Row], console: Console) -> int:
    """Prints the rows as they come and returns how many failed."""
    failed = 0
    for row in measured:
        figure = row.figure
        height, width = row.size
        verdict = "[green]PASS[/]" if figure.passed else "[bold red]FAIL[/]"
        console.print(
            f"{verdict}  {row.network:20} {height:>3}x{width:<3}  {figure.dtype:8}"
            f"{figure.what:46}{figure.value:9.1e}  <= {figure.bound:.1e}"
        )
        failed += not figure.passed
    return failed


def main() -> int:
    """Runs everything; the exit code is 1 if a figure fails."""
    # Threads gain nothing on networks this small, and stall where the machine is shared.
    torch.set_num_threads(1)
    console = Console(highlight=False, soft_wrap=True)
    failed = report(rows(), console)
    if not goldens.GOLDENS.is_dir():
        console.print(
            f"NOTE  goldens of the peers: not compared, since {goldens.GOLDENS} is missing; "
            "run this in a checkout of the repository"
        )
    console.print(f"{failed} figures failed" if failed else "all figures passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
