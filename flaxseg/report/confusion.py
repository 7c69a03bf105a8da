"""The picture of a confusion matrix.

matplotlib is imported where it draws: commands begin a quarter of a second sooner without it.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flaxseg.files import replace_file
from flaxseg.inference.metrics import Scores
from flaxseg.pictures.text import caption_line, class_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBERED = 40
"""Up to this many classes, every cell shows its percentage."""

_DPI = 110
_WIDTH_AT = 100  # pixels of the font whose widths are measured
_LETTER = 9 / 72 / _WIDTH_AT  # inches that a pixel of its texts takes at 9 points


def draw_confusion(scores: Scores, classes: Sequence[str], path: Path, title: str) -> None:
    """Draws where the pixels of each class went, as shares of the class, into a PNG.

    Args:
        scores: with the counts of K classes; rows of classes without a pixel stay grey.
        classes: K names, all of them readable up to at least 150.
        path: file to write, replaced only when it is whole.
        title: heading.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(classes)
    cell = 0.42 if count <= NUMBERED else 0.2
    grid = max(2.4, cell * count)
    lines = [class_line(name, i) for i, name in enumerate(classes)]
    names = 0.5 + max(line.width(_WIDTH_AT) for line in lines) * _LETTER
    width, height = names + grid + 1.1, names + grid + 0.6
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((names / width, names / height, grid / width, grid / height))
    with np.errstate(invalid="ignore"):
        shares = scores.matrix / scores.matrix.sum(axis=1, keepdims=True)
    colors = colormaps["Blues"].with_extremes(bad="0.85")
    image = axes.imshow(shares, cmap=colors, vmin=0, vmax=1, aspect="auto")
    bar = figure.add_axes((1 - 0.75 / width, names / height, 0.15 / width, grid / height))
    figure.colorbar(image, cax=bar, label="share of the true class")
    font = 9 if count <= NUMBERED else 7
    axes.set_xticks(range(count), [line.text for line in lines], rotation=90)
    axes.set_yticks(range(count), [line.text for line in lines])
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        for text, line in zip(ticks, lines, strict=True):
            text.set(**line.style(font))
    axes.set(xlabel="predicted", ylabel="true")
    heading = caption_line(title)
    place = {"x": 0.02, "y": 1 - 0.15 / height, "ha": "left", "va": "top"}
    figure.suptitle(heading.text, **place, **heading.style(10))
    if count <= NUMBERED:
        _write_percentages(axes, shares)
    with replace_file(path) as partial:
        figure.savefig(partial, format="png", dpi=_DPI)


def _write_percentages(axes: "Axes", shares: np.ndarray) -> None:
    for (row, column), share in np.ndenumerate(shares):
        # A share that rounds to nothing is not worth its ink, and two digits fit where three don't.
        if not math.isnan(share) and share >= 0.005:
            color = "white" if share > 0.5 else "black"
            text = f"{100 * share:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
