"""Speed and exactness of networks on the GPU or TPU at hand, the PyTorch twin beside them.

    python benchmarks/accelerator.py [NAME ...] [--out FILE] [--minutes M] [--no-forms]

Needs jax for the device, flax, optax and numpy, and no installation of flaxseg. Where PyTorch finds
CUDA, `torch_ref` runs in the same minutes: eagerly in NCHW and channels last, and in bfloat16 also
through torch.compile. Each task has a process of its own, never two at once, which appends a JSON
line to FILE as soon as it has a number; no task begins when M minutes are over. The same command
goes on where FILE ends. FILE is printed as Markdown in the end, and by --table.

- forms: the ways in which `flaxseg.ops` can run an operation, each compared with the first, and
  timed. "flaxseg" is what a network gets on the device at hand.
- forward, training: images per second of the pass to logits of the images' size, and of a step with
  all heads, cross entropy and SGD with momentum: the median of some turns and the slowest. Peak
  memory of the process by then, and the seconds of compiling both side by side. Which libraries a
  program calls, and how many convolutions with a window of more than 16 pixels it has.
- difference: the largest between the logits and those of float64 on the CPU, over the largest of
  these. Gains, biases and statistics are random, so that no gate is closed.
- ceiling: a matrix product in bfloat16 and a copy, first and last: they differ where clocks drift.

Precisions: "exact" is float32 throughout, "default" what JAX makes of float32 on the device (TF32
on a GPU, bfloat16 on a TPU) and TF32 in PyTorch, "bfloat16" the networks' `dtype` and autocast.
"""

import argparse
import importlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(1, str(ROOT))  # a bare machine has flaxseg nowhere else

from accelerator_job import Clock, Job, append  # noqa: E402
from networks import published_size  # noqa: E402

from flaxseg import models  # noqa: E402

LEAST = 20
"""Seconds below which no task begins."""

BATCHES = {"ccnet": 16, "setr": 16, "segformer": 16, "bisenetv2": 16, "vitseg": 64}
"""The networks that are measured unless others are named, and the images of a batch."""

TINY: dict[str, dict[str, Any]] = {
    "bisenetv2": {"backbone.expansion": 2, "head_channels": 16},
    "ccnet": {"backbone.width": 8, "backbone.blocks": (1, 1, 1, 1), "channels": 32},
    "segformer": {
        "backbone.widths": (8, 16, 20, 24),
        "backbone.depths": (1, 1, 1, 1),
        "channels": 16,
    },
    "setr": {
        "backbone.width": 64,
        "backbone.mlp_dim": 16,
        "backbone.depth": 4,
        "backbone.out_indices": (0, 1, 2, 3),
        "channels": 8,
    },
    "vitseg": {"width": 64, "mlp_dim": 16, "depth": 2},
}
"""Fields by architecture for --tiny, with images of 64×64: seconds on a CPU."""

Line = dict[str, Any]


def tasks(names: Iterable[str], sides: list[str], forms: bool) -> Iterator[tuple[str, ...]]:
    """What each process does, in this order: what is least known first."""
    names = list(names)
    yield "ceiling", "first"
    if forms:
        yield ("forms",)
    for name, side in itertools.product(names, [*sides, *(f"{s} compile" for s in sides[1:])]):
        yield name, side, "bfloat16"
    yield from itertools.product(names, sides, ("exact", "default"))
    yield "ceiling", "last"


def run(task: tuple[str, ...], options: argparse.Namespace, seconds: float) -> None:
    """Does a task in another process and writes down its end, or what kept it from that."""
    print(*task, flush=True)
    command = [sys.executable, __file__, *sys.argv[1:], "--task", ",".join(task)]
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    start = time.monotonic()
    try:
        ended = subprocess.run(
            command, env=environment, timeout=seconds, stderr=subprocess.PIPE, text=True
        )
    except subprocess.TimeoutExpired:
        append(options.out, task=task, error=f"cut off after {seconds:.3g} s")
        return
    if ended.returncode:
        last = (ended.stderr.strip() or f"ended with {ended.returncode}").splitlines()[-1]
        append(options.out, task=task, error=last[:300])
    else:
        append(options.out, task=task, seconds=time.monotonic() - start)


def run_all(names: list[str], options: argparse.Namespace) -> None:
    """Does what FILE does not tell yet, as long as there is time."""
    end = time.monotonic() + 60 * options.minutes
    lines = read(options.out)
    done = {tuple(line["task"]) for line in lines if "seconds" in line}
    for task in tasks(names, sides(options.tiny), options.forms):
        left = end - time.monotonic()
        if task in done:
            continue
        if left < LEAST and task[0] != "ceiling":
            print(*task, "left out: the time is over", flush=True)
            continue
        run(task, options, min(options.seconds, max(left, LEAST)))


def read(out: Path) -> list[Line]:
    """The lines of the file of results so far."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def perform(task: list[str], options: argparse.Namespace) -> None:
    """Does a task in this process."""
    clock = Clock(options.repeats, options.turn)
    if task[0] == "ceiling":
        import accelerator_jax

        return accelerator_jax.ceiling(task[1], options.tiny, clock, options.out)
    if task[0] == "forms":
        import accelerator_forms

        return accelerator_forms.run(options.tiny, clock, options.out)
    name, side, precision = task
    side, _, compiles = side.partition(" ")
    module: Any = importlib.import_module(f"accelerator_{side}")
    config, size = models.get_config(name), published_size(name)
    batch = options.batch_size or BATCHES.get(name, 4)
    if options.tiny:
        size, batch = (64, 64), 4
        fields = TINY[models.architecture_of(config)]
        config = models.override(config, fields).with_image_size(size)
    job = Job(name, precision, config, batch, size, clock, options.out, module.machine())
    module.network_compiled(job) if compiles else module.network(job)


def sides(tiny: bool) -> list[str]:
    """The frameworks that run: PyTorch where it finds CUDA, or is there at all."""
    if importlib.util.find_spec("torch") is None:
        return ["jax"]
    # In a process of its own, which gives the GPU back.
    script = "import torch; raise SystemExit(not torch.cuda.is_available())"
    found = tiny or subprocess.run([sys.executable, "-c", script]).returncode == 0
    return ["jax", "torch"] if found else ["jax"]


def write_page() -> None:
    """Makes the region of docs/accelerators.md from the committed results."""
    import page

    page.fill(ROOT / "docs" / "accelerators.md", {"measured": committed()})


def committed() -> str:
    """The tables of all files of benchmarks/results/accelerator."""
    files = sorted((ROOT / "benchmarks" / "results" / "accelerator").glob("*.jsonl"))
    return "\n\n".join(f"`{file.stem}.jsonl`:\n\n" + "\n".join(table(read(file))) for file in files)


def table(lines: list[Line]) -> Iterator[str]:
    """The results as Markdown: machines, ceilings, forms, networks, errors."""
    for side in ("jax", "torch"):
        about = sorted({f"{x['version']} on {x['device']}" for x in lines if x.get("side") == side})
        yield f"- {side}: {', '.join(about) or 'not measured'}"
    for x in lines:
        if "ceiling" in x:
            call = f" of call {x['call']}" if "call" in x else ""
            rates = f"{x['median']:.4g} {x['what']}, slowest {x['min']:.4g}"
            yield f"- ceiling, {x['ceiling']}{call}: {rates}"
    yield "\n| operation | size | milliseconds of each form, the fastest bold |\n|---|---|---|"
    races = {(x["race"], x["shape"]): None for x in lines if "race" in x}
    for race in races:
        forms = [x for x in lines if (x.get("race"), x.get("shape")) == race]
        yield f"| {' | '.join(race)} | {_race(forms)} |"
    yield ""
    yield (
        "| network | precision | what | JAX images/s | slowest | peak | compiled in "
        "| library calls | large windows | torch images/s | slowest | peak | as | JAX/torch "
        "| compiled torch "
        "images/s | JAX/compiled |"
    )
    yield "|---" * 16 + "|"
    for key in dict.fromkeys(map(_key, lines)):
        if key is not None:
            yield _row(*key, [x for x in lines if _key(x) == key])
    differences = [x for x in lines if x.get("what") == "difference"]
    if differences:
        yield "\n| network | precision | difference |\n|---|---|---|"
    for x in differences:
        yield f"| `{x['network']}` | {x['precision']} | {x['difference']:.1e} |"
    for x in lines:
        if "error" in x:
            yield f"\n{' '.join(x['task'])}: {x['error']}"


def _race(forms: list[Line]) -> str:
    fastest = min((x["ms"] for x in forms if "ms" in x), default=None)

    def said(form: Line) -> str:
        if "refused" in form:
            return f"{form['form']} refused"
        text = f"{form['form']} {form['ms']:.3f}"
        return f"**{text}**" if form["ms"] == fastest else text

    return ", ".join(map(said, forms))


def _calls(line: Line) -> str:
    """Names of libraries' functions, without their marks, and how often they are called."""
    calls = line.get("calls") or {}
    return (
        ", ".join(f"{n} {name.lstrip('_').replace('$', ' ')}" for name, n in calls.items()) or "-"
    )


def _key(line: Line) -> tuple[str, str, str] | None:
    """What the frameworks are compared in."""
    if line.get("what") not in ("forward", "training"):
        return None
    height, width = line["size"]
    network = f"`{line['network']}`, {line['batch']} of {height}×{width}"
    return network, line["precision"], line["what"]


def _row(network: str, precision: str, what: str, lines: list[Line]) -> str:
    def best(side: str, compiled: bool = False) -> Line:
        wanted = [x for x in lines if x["side"] == side and x.get("compiled", False) == compiled]
        return max(wanted, key=lambda x: x["median"], default={})

    jax, torch, other = best("jax"), best("torch"), best("torch", compiled=True)

    def ratio(to: Line) -> str:
        return _number(jax["median"] / to["median"] if jax and to else None)

    cells = [
        *(_number(jax.get(field)) for field in ("median", "min")),
        _mebibytes(jax.get("peak")),
        _number(jax.get("compile_seconds")) + " s",
        _calls(jax),
        str(jax.get("large_windows", "-")),
        *(_number(torch.get(field)) for field in ("median", "min")),
        _mebibytes(torch.get("peak")),
        torch.get("layout", "-"),
        ratio(torch),
        _number(other.get("median")),
        ratio(other),
    ]
    return f"| {' | '.join([network, precision, what, *cells])} |"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _mebibytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**20:.0f} MiB"


def main() -> None:
    """Does the tasks one after the other and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"else {', '.join(BATCHES)}")
    parser.add_argument("--out", type=Path, default=Path("accelerator.jsonl"), help="of results")
    parser.add_argument("--minutes", type=float, default=9, help="after which no task begins")
    parser.add_argument("--seconds", type=float, default=240, help="deadline of each process")
    parser.add_argument(
        "--no-forms", dest="forms", action="store_false", help="networks alone, no operations"
    )
    parser.add_argument("--batch-size", type=int, help="images, instead of the usual")
    parser.add_argument("--repeats", type=int, default=5, help="timed turns of each number")
    parser.add_argument("--turn", type=float, default=0.5, help="seconds of a turn, about")
    parser.add_argument("--tiny", action="store_true", help="narrow networks: does it run at all?")
    parser.add_argument("--table", action="store_true", help="only print FILE")
    parser.add_argument(
        "--page", action="store_true", help="only write docs/accelerators.md, from all results"
    )
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.names or list(BATCHES)
    if unknown := set(names) - set(models.list_models()):
        parser.error(f"no network is called {', '.join(sorted(unknown))}")
    if options.task:
        return perform(options.task.split(","), options)
    if options.page:
        return write_page()
    if not options.table:
        run_all(names, options)
    print(*table(read(options.out)), sep="\n")


if __name__ == "__main__":
    main()
