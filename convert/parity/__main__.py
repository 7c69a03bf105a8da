"""`python -m convert.parity`: the table of how exactly Flax and PyTorch agree."""

import argparse
import fnmatch
import os
import sys
from collections.abc import Iterable

from rich.console import Console

from convert.parity import goldens
from convert.parity.figures import (
    QUANTITIES,
    TIMES_TORCH,
    Figure,
    Row,
)
from convert.parity.networks import COMPARISONS
from convert.parity.rows import one_thread, rows
from flaxseg.models import list_models

RATIOS = ("train", "gradients", "SGD", "AdamW")
"""Where float32 is held against PyTorch's own float32."""

LEGEND = "\n".join(
    [
        "Every number is the largest relative difference from PyTorch in float64, of",
        *(f"  {name}: {words}" for name, words in QUANTITIES.items()),
        "A number with an x is float32's distance from float64 over that of PyTorch's own",
        f"float32, the median of 20 batches; {TIMES_TORCH:g} passes.",
        "bits: tensors that a round trip through torch_ref or a published layout changes.",
    ]
)


def report(measured: Iterable[Row], console: Console) -> int:
    """Prints the rows as they come and returns how many failed."""
    failed = 0
    header = "".join(f"{name:>11}" for name in QUANTITIES)
    console.print(f"{'':47}{'float64':>11}{'':55}    {'float32':>11}")
    console.print(f"      {'network':31}{'size':>9} {header}    {header}{'bits':>8}")
    for row in measured:
        bad = [figure for figure in row.figures if not figure.passed]
        verdict = "[bold red]FAIL[/]" if bad else "[green]PASS[/]"
        size = f"{row.size[0]}x{row.size[1]}"
        console.print(f"{verdict}  {row.network:31}{size:>9} {_cells(row.figures)}")
        for figure in bad:
            console.print(
                f"      {figure.dtype} {figure.what}: {figure.value:.2e}, bound {figure.bound:.1e}"
            )
        failed += bool(bad)
    return failed


def _cells(figures: list[Figure]) -> str:
    """The numbers in the order of the header; a published network's by their own names."""
    by_place = {(figure.dtype, figure.what): figure for figure in figures}
    places = [(dtype, what) for dtype in ("float64", "float32") for what in QUANTITIES]
    if not any(place in by_place for place in places):
        return "".join(f"   {f.what} {f.value:.1e} <= {f.bound:.1e}" for f in figures)
    cells = [f"{_number(by_place.get(place)):>11}" for place in places]
    cells.insert(len(QUANTITIES), "    ")
    changed = [figure.value for figure in figures if figure.dtype == "bits"]
    return "".join(cells) + (f"{sum(changed):>8g}" if changed else f"{'':>8}")


def _number(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    if figure.dtype == "float32" and figure.what in RATIOS:
        return f"{TIMES_TORCH * figure.value / figure.bound:.2f} x"
    return f"{figure.value:.1e}"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m convert.parity", description=__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="names of networks: 'segformer*'")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument(
        "--full",
        action="store_true",
        help="train in float32 too those networks that differ from another in sizes alone",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs everything; the exit code is 1 if a figure fails."""
    options = _parse(arguments)
    one_thread()
    console = Console(highlight=False, soft_wrap=True)
    names = [name for name in COMPARISONS if fnmatch.fnmatch(name, options.pattern)]
    if not names:
        console.print(f"no network is called {options.pattern}: {', '.join(list_models())}")
        return 2
    failed = report(rows(names, options.jobs, options.full), console)
    console.print(LEGEND)
    if not goldens.GOLDENS.is_dir():
        console.print(
            f"NOTE  goldens of the peers: not compared, since {goldens.GOLDENS} is missing; "
            "run this in a checkout of the repository"
        )
    console.print(f"{failed} rows failed" if failed else "all rows passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
