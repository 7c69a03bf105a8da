"""Tells what a data set holds: `flaxseg data check`."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flaxseg.data.problems import BadSample
from flaxseg.data.source import Source
from flaxseg.data.statistics import Statistics
from flaxseg.labels import LabelSet
from flaxseg.pictures.open import count_pixels
from flaxseg.printed import table_title

_NAMED = 5


def print_report(
    console: Console,
    sources: Mapping[str, Source],
    statistics: Mapping[str, Statistics],
    skipped: Sequence[BadSample],
) -> None:
    """Prints counts, sizes, classes, suggested weights, odd masks and files that cannot be used.

    Args:
        console: where to.
        sources: the splits, "train" among them.
        statistics: what each split holds.
        skipped: what cannot be used.
    """
    labels = sources["train"].labels
    for line in understood(sources.values()):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.print(_splits(labels, statistics))
    console.print(_classes(labels, statistics))
    for line in absent_classes(labels, statistics):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    lines = [("ids out of range", _ids(skipped))]
    for split, counted in statistics.items():
        source = sources[split]
        lines.append((f"masks without any labelled pixel, {split}", _names(source, counted.empty)))
        lines.append((f"masks of one class alone, {split}", _names(source, counted.uniform)))
    lines.append(("samples that cannot be used", str(len(skipped) or "none")))
    lines += [("  " + sample.name, sample.reason) for sample in skipped]
    for title, text in lines:
        console.print(f"{title}: {text}", soft_wrap=True, highlight=False, markup=False)


def understood(sources: Iterable[Source]) -> list[str]:
    """How the files of some splits were understood, each line once."""
    return list(dict.fromkeys(line for s in sources for line in getattr(s, "lines", ())))


def absent_classes(labels: LabelSet, statistics: Mapping[str, Statistics]) -> list[str]:
    """A line for each class of which there is no pixel, at all or in the training split.

    Args:
        labels: the classes.
        statistics: what each split holds, "train" among them.
    """
    nowhere = np.logical_and.reduce([counted.pixels == 0 for counted in statistics.values()])
    untrained = (statistics["train"].pixels == 0) & ~nowhere
    where = {"no pixels": nowhere, "no pixels in train": untrained}
    return [
        f"{text}: {labels.classes[index]}"
        for text, absent in where.items()
        for index in np.flatnonzero(absent)
    ]


def _splits(labels: LabelSet, statistics: Mapping[str, Statistics]) -> Table:
    table = Table(title=table_title(f"{labels.name}: {labels.num_classes} classes"))
    table.add_column("split")
    for heading in ("images", "smallest", "median", "largest", "sizes", "unlabelled %"):
        table.add_column(heading, justify="right")
    for split, counted in statistics.items():
        heights, widths = counted.sizes.astype(np.int64).T
        order = np.argsort(heights * widths, kind="stable")
        some = (order[0], order[len(order) // 2], order[-1])
        shown = [f"{widths[i]} x {heights[i]}" for i in some]
        kinds = len(np.unique(counted.sizes, axis=0))
        unlabelled = counted.ignored / max(int((heights * widths).sum()), 1)
        row = (str(len(order)), *shown, str(kinds), f"{100 * unlabelled:.2f}")
        table.add_row(split, *row)
    return table


def _classes(labels: LabelSet, statistics: Mapping[str, Statistics]) -> Table:
    """Classes by share of the training pixels, and the weights that follow."""
    train = statistics["train"]
    others = [split for split in statistics if split != "train"]
    table = Table(title="classes by share of labelled pixels", caption="weights from train")
    for heading in ("id", "class"):
        table.add_column(heading, justify="right" if heading == "id" else "left")
    headings = [f"{split} %" for split in ("train", *others)]
    for heading in (*headings, "in images %", "median-freq weight", "ENet weight"):
        table.add_column(heading, justify="right")
    median, enet = train.median_frequency_weights(), train.enet_weights()
    present = 100 * train.images / max(len(train.counts), 1)
    for index in np.argsort(-train.shares, kind="stable"):
        shares = [f"{100 * statistics[s].shares[index]:.2f}" for s in ("train", *others)]
        weights = (f"{median[index]:.3f}", f"{enet[index]:.3f}")
        row = (*shares, f"{present[index]:.1f}", *weights)
        table.add_row(str(index), Text(labels.classes[index]), *row)
    return table


def _ids(skipped: Iterable[BadSample]) -> str:
    found: dict[int, int] = {}
    for sample in skipped:
        for value, pixels in sample.values:
            found[value] = found.get(value, 0) + pixels
    texts = (f"{value} ({count_pixels(pixels)})" for value, pixels in sorted(found.items()))
    return ", ".join(texts) or "none"


def _names(source: Source, indices: np.ndarray) -> str:
    """How many, and the first few names."""
    if not len(indices):
        return "none"
    names = ", ".join(source.name(int(index)) for index in indices[:_NAMED])
    return f"{len(indices)} ({names}{', ...' if len(indices) > _NAMED else ''})"
