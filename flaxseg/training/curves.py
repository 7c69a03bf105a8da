"""The picture of a run: all that is logged over the steps.

matplotlib is imported where it draws: a run begins a quarter of a second sooner without it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flaxseg.files import replace_file
from flaxseg.pictures.text import caption_line, class_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[dict[str, str]]

_NAMES = {"miou": "mIoU", "lr": "learning rate", "grad_norm": "gradient norm"}
_LOSS, _IOU = "loss/", "iou/"
_COUNTS = ("step", "epoch")

_WIDTH, _PANELS = 14.0, 3.9  # inches
_SMALL = 8
_WIDTH_AT = 100  # pixels of the font whose widths are measured
_LETTER = _SMALL / 72 / _WIDTH_AT  # inches that a pixel of its texts takes in small


def draw_curves(rows: Rows, path: Path, title: str) -> None:
    """Draws every column of metrics.csv into a PNG, replaced only when it is whole.

    Losses, learning rate, gradient norm and scores are curves, and the IoUs of the classes, once
    there are any, a map below them: of many classes no curve could be followed.

    Args:
        rows: rows of metrics.csv as text, empty where a column does not apply.
        path: file to write.
        title: heading, such as the work directory.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = list(dict.fromkeys(name for row in rows for name in row))
    classes = [name for name in columns if name.startswith(_IOU)]
    evaluated = [row for row in rows if any(row.get(name) for name in classes)]
    below = 1.1 + 0.17 * len(classes) if evaluated else 0.0
    height = _PANELS + below
    figure = Figure(figsize=(_WIDTH, height))
    FigureCanvasAgg(figure)
    heading = caption_line(title)
    figure.suptitle(heading.text, y=1 - 0.1 / height, va="top", **heading.style("large"))
    # Laid out by hand: matplotlib's own layouts draw everything several times.
    sides = {"left": 0.55 / _WIDTH, "right": 1 - 0.15 / _WIDTH, "wspace": 0.19}
    ends = {"bottom": (below + 0.5) / height, "top": 1 - 0.65 / height}
    panels: Any = figure.add_gridspec(1, 4, **sides, **ends).subplots()
    _draw_panels(panels, rows, [name for name in columns if name not in (*classes, *_COUNTS)])
    if evaluated:
        _draw_classes(figure, evaluated, classes)
    with replace_file(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _draw_panels(panels: "Sequence[Axes]", rows: Rows, columns: Sequence[str]) -> None:
    loss, rate, norm, scores = panels
    losses = [name for name in columns if name == "loss" or name.startswith(_LOSS)]
    rest = [name for name in columns if name not in (*losses, "lr", "grad_norm")]
    _curves(loss, rows, losses, "training loss")
    _curves(rate, rows, ["lr"], _NAMES["lr"])
    _curves(norm, rows, ["grad_norm"], _NAMES["grad_norm"])
    _curves(scores, rows, rest, "scores")
    scores.set_ylim(0, 1)


def _curves(axes: "Axes", rows: Rows, columns: Sequence[str], title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for column in columns:
        points = [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
        if points:
            line = caption_line(_NAMES.get(column, column.removeprefix(_LOSS).replace("_", " ")))
            marker = "." if len(points) < 40 else ""
            axes.plot(*zip(*points, strict=True), marker=marker, linewidth=1.2, label=line.text)
    axes.set(title=title, xlabel="step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(alpha=0.3)
    if len(columns) > 1 and axes.lines:
        for text in axes.legend(loc="best", fontsize="small").get_texts():
            text.set_parse_math(False)


def _draw_classes(figure: "Figure", rows: Rows, columns: Sequence[str]) -> None:
    """IoU of each class (rows) in each evaluation (columns), at the bottom of a figure."""
    from matplotlib import colormaps

    values = np.array([[float(row.get(name) or "nan") for row in rows] for name in columns])
    lines = [class_line(name.removeprefix(_IOU), i) for i, name in enumerate(columns)]
    names = 0.3 + max(line.width(_WIDTH_AT) for line in lines) * _LETTER
    width, height = figure.get_size_inches()
    bottom, tall = 0.55 / height, 0.17 * len(columns) / height
    axes = figure.add_axes((names / width, bottom, 1 - (names + 0.7) / width, tall))
    colors = colormaps["Blues"].with_extremes(bad="0.85")
    image = axes.imshow(values, cmap=colors, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(lines)), [line.text for line in lines])
    for text, line in zip(axes.get_yticklabels(), lines, strict=True):
        text.set(**line.style(_SMALL))
    shown = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 12)).astype(int))
    axes.set_xticks(shown, [rows[i]["step"] for i in shown])
    axes.set(xlabel="step of the evaluation", title="IoU of each class; grey where it has none")
    bar = figure.add_axes((1 - 0.55 / width, bottom, 0.15 / width, tall))
    figure.colorbar(image, cax=bar)
