"""The picture of a run: loss, learning rate and scores over the steps."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator

from flaxseg.files import replace_file
from flaxseg.pictures.text import caption_line

Rows = Sequence[dict[str, str]]


def draw_curves(rows: Rows, path: Path, title: str) -> None:
    """Draws the columns of metrics.csv into a PNG, replaced only when it is whole.

    Args:
        rows: rows of metrics.csv as text, empty where a column does not apply.
        path: file to write.
        title: heading, such as the work directory.
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    FigureCanvasAgg(figure)
    heading = caption_line(title)
    font = FontProperties(fname=heading.file, size="large")
    figure.suptitle(heading.text, fontproperties=font, parse_math=False)
    loss, rate, scores = figure.subplots(1, 3)
    _curve(loss, rows, ["loss"], "training loss", marker="")
    _curve(rate, rows, ["lr"], "learning rate", marker="")
    _curve(scores, rows, ["miou", "pixel_accuracy", "mean_accuracy"], "validation", marker=".")
    scores.set_ylim(0, 1)
    with replace_file(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _curve(axes: Axes, rows: Rows, columns: Sequence[str], title: str, marker: str) -> None:
    names = {"miou": "mIoU"}
    for column in columns:
        points = [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
        if points:
            label = names.get(column, column.replace("_", " "))
            axes.plot(*zip(*points, strict=True), marker=marker, linewidth=1.2, label=label)
    axes.set(title=title, xlabel="step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if len(columns) > 1 and axes.lines:
        axes.legend(loc="best", fontsize="small")
