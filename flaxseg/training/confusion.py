"""The picture of a confusion matrix."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flaxseg.files import replace_file
from flaxseg.inference.metrics import Scores

NUMBERED = 40
"""Up to this many classes, every cell shows its percentage."""

_DPI = 110
_LETTER = 0.075  # inches that a letter of a class name takes


def draw_confusion(scores: Scores, classes: Sequence[str], path: Path, title: str) -> None:
    """Draws where the pixels of each class went, as shares of the class, into a PNG.

    Args:
        scores: with the counts of K classes; rows of classes without a pixel stay grey.
        classes: K names, all of them readable up to at least 150.
        path: file to write, replaced only when it is whole.
        title: heading.
    """
    count = len(classes)
    cell = 0.42 if count <= NUMBERED else 0.2
    grid = max(2.4, cell * count)
    names = 0.5 + _LETTER * max(map(len, classes))
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
    axes.set_xticks(range(count), classes, rotation=90, fontsize=font)
    axes.set_yticks(range(count), classes, fontsize=font)
    axes.set(xlabel="predicted", ylabel="true")
    figure.suptitle(title, fontsize=10, x=0.02, y=1 - 0.15 / height, ha="left", va="top")
    if count <= NUMBERED:
        _write_percentages(axes, shares)
    with replace_file(path) as partial:
        figure.savefig(partial, format="png", dpi=_DPI)


def _write_percentages(axes: Axes, shares: np.ndarray) -> None:
    for (row, column), share in np.ndenumerate(shares):
        # A share that rounds to nothing is not worth its ink, and two digits fit where three don't.
        if not math.isnan(share) and share >= 0.005:
            color = "white" if share > 0.5 else "black"
            text = f"{100 * share:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
