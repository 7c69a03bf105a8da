"""Plans the training steps of networks on slices of TPUs and writes the tables of the docs.

    python benchmarks/accelerators.py [PATTERN] [--limit SECONDS]

Every row is a `flaxseg plan` in a process of its own, which needs libtpu (`flaxseg[plan]`) and
minutes. Its numbers go to benchmarks/results/accelerators/ROW.json; rows that have a file are
passed over, so the same command goes on where it was stopped. A row that takes longer than the
limit is recorded so, and so is one with which libtpu crashes. The tables in docs/accelerators.md
are then made from all files.
"""

import argparse
import fnmatch
import itertools
import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import page
from flax import nnx

from flaxseg.files import replace_text
from flaxseg.models import abstract_model, get_config
from flaxseg.planning.chips import CHIPS
from flaxseg.planning.products import CONVOLUTION
from flaxseg.training import make_config

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "accelerators"
PAGE = ROOT / "docs" / "accelerators.md"

RECIPES = {
    "vitseg": "pets",
    "bisenetv2": "ade20k",
    "segformer_b0": "ade20k",
    "ccnet": "ade20k",
    "setr": "ade20k",
    "segformer_b5": "ade20k",
    "setr_pup": "ade20k",
}
"""The recipe that a network is planned with, the quick ones first."""

TOPOLOGIES = {"v5e:2x4": 8, "v5p:2x2x2": 8, "v5e:8x8": 64}
"""Slices with their numbers of chips."""

VARIANTS = {"plain": [], "fsdp8": ["--fsdp", "8"], "remat": ["--override", "remat=true"]}
"""Further flags by name."""

GIB, MIB = 2**30, 2**20


class Row(NamedTuple):
    """One plan."""

    model: str
    topology: str
    variant: str

    @property
    def name(self) -> str:
        """The file's, without its ending."""
        return f"{self.model}-{self.topology.replace(':', '-')}-{self.variant}"

    @property
    def file(self) -> Path:
        """Where its numbers are."""
        return RESULTS / f"{self.name}.json"

    def flags(self) -> list[str]:
        """The command line: the recipe's batch, or one image a chip where there are more chips."""
        recipe, chips = RECIPES[self.model], TOPOLOGIES[self.topology]
        batch = make_config(self.model, recipe=recipe).batch_size
        whole = -(-batch // chips) * chips
        run = ["--model", self.model, "--recipe", recipe, "--dtype", "bfloat16"]
        run += ["--batch-size", str(whole), "--topology", self.topology]
        return [*run, *VARIANTS[self.variant]]


def rows() -> Iterator[Row]:
    """All rows in the order of the table."""
    for topology, model, variant in itertools.product(TOPOLOGIES, RECIPES, VARIANTS):
        yield Row(model, topology, variant)


def in_order_of_planning() -> list[Row]:
    """Every network of a slice once before any is planned otherwise."""
    order = list(VARIANTS)
    return sorted(
        rows(), key=lambda row: (list(TOPOLOGIES).index(row.topology), order.index(row.variant))
    )


def plan(row: Row, limit: float) -> str:
    """Makes a row's file and returns how that went, in words."""
    command = [sys.executable, "-m", "flaxseg.cli", "plan", *row.flags(), "--json", str(row.file)]
    RESULTS.mkdir(parents=True, exist_ok=True)
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        replace_text(row.file, json.dumps({"timed_out": limit}))
        return f"not compiled within {limit:.0f} s"
    if ended.returncode == -signal.SIGSEGV:
        replace_text(row.file, json.dumps({"crashed": True}))
        return "libtpu crashed"
    if not row.file.exists():
        return f"failed: {(ended.stderr.strip() or 'without a word').splitlines()[-1]}"
    return "planned" if ended.returncode == 0 else "does not fit"


def table() -> str:
    """All results in Markdown, in the order of `rows`."""
    head = (
        "| network | slice | | batch | image | memory | of a chip | GFLOP | GiB accessed "
        "| MiB sent | least | bound by | at least | XLA | compiled in |"
    )
    lines = [head, "|---|---|---|" + "---|" * 12]
    for row in rows():
        if row.file.exists():
            lines.append(_line(row, json.loads(row.file.read_text())))
    return "\n".join(lines)


def _line(row: Row, found: dict[str, Any]) -> str:
    flags = " ".join(VARIANTS[row.variant])
    first = f"| `{row.model}` | {row.topology} | {flags and f'`{flags}`'} |"
    if "timed_out" in found:
        return f"{first} not compiled within {found['timed_out']:.0f} s |" + " |" * 11
    if "crashed" in found:
        return f"{first} libtpu ends with a segmentation fault |" + " |" * 11
    height, width = found["image_size"]
    first += f" {found['batch_size']} | {height}×{width} |"
    if not found["fits"]:
        available = CHIPS[row.topology.partition(":")[0]].memory
        asked = found["asked"] or math.nan
        return f"{first} {_gib(asked)} | {asked / available:.0%} |" + " |" * 8
    seconds = found["xla_seconds"]
    cells = (
        _gib(found["memory"]["peak"]),
        f"{found['memory']['peak'] / found['available']:.0%}",
        f"{found['flops'] / 1e9:.0f}",
        f"{found['bytes_accessed'] / GIB:.2f}",
        f"{found['sent'] / MIB:.0f}",
        f"{found['least_sent'] / MIB:.0f}",
        found["bound"],
        f"{1e3 * found['bounds'][found['bound']]:.2f} ms",
        "" if seconds is None else f"{1e3 * seconds:.2f} ms",
        f"{found['compile_seconds']:.0f} s",
    )
    return f"{first} {' | '.join(cells)} |"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"


def programs() -> str:
    """What the compiler made of each network, in Markdown."""
    head = (
        "| network | products of bfloat16 | of float32, exact | of float32, rounded "
        "| largest window, of | most of the time by XLA |"
    )
    lines = [head, "|---|---|---|---|---|---|"]
    for model in RECIPES:
        file = Row(model, next(iter(TOPOLOGIES)), "plain").file
        if file.exists():
            found = json.loads(file.read_text())
            if found.get("fits"):
                lines.append(_program(model, found))
    return "\n".join(lines)


def _program(model: str, found: dict[str, Any]) -> str:
    rows = found["products"]

    def number(operands: str, *exact: bool) -> int:
        wanted = [row for row in rows if row["operands"] == operands and row["exact"] in exact]
        return sum(row["count"] for row in wanted)

    windows = [row["window"] for row in rows if row["kind"] == CONVOLUTION and row["window"]]
    window = "×".join(map(str, max(windows))) if windows else "none"
    total = sum(part["seconds"] for part in found["parts"]) or math.nan
    most = [
        f"{part['seconds'] / total:.0%} `{part['where']}`{', gradient' if part['backward'] else ''}"
        for part in found["parts"][:4]
    ]
    numbers = number("bfloat16", False, True), number("float32", True), number("float32", False)
    cells = *numbers, f"{window}, {_kernel(model)}"
    return f"| `{model}` | {' | '.join(map(str, cells))} | {'; '.join(most)} |"


def _kernel(model: str) -> str:
    """The largest kernel among the network's convolutions."""
    params = nnx.to_flat_state(nnx.state(abstract_model(get_config(model)), nnx.Param))
    kernels = [v.shape[:2] for _, v in params if v.get_metadata().get("layout") == "conv"]
    return "×".join(map(str, max(kernels)))


def write_page() -> None:
    """Puts the tables between the markers of the page."""
    page.fill(PAGE, {"accelerators": table(), "programs": programs()})


def main() -> None:
    """Plans what is missing, then writes the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pattern", nargs="?", default="*", help="rows, such as 'vitseg-v5e-2x4-*'")
    parser.add_argument("--limit", type=float, default=600, help="seconds for each row")
    options = parser.parse_args()
    for row in in_order_of_planning():
        if fnmatch.fnmatch(row.name, options.pattern) and not row.file.exists():
            print(row.name, flush=True)
            print(f"  {plan(row, options.limit)}", flush=True)
            write_page()
    write_page()


if __name__ == "__main__":
    main()
