"""Numbers of each class as bars."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from flaxseg.labels import Color, LabelSet
from flaxseg.pictures.legend import FRAME, INK, PAPER
from flaxseg.pictures.text import Line, caption_line, class_line

_FONT = 16
_GAP, _ROW = _FONT // 2, round(1.6 * _FONT)
_BAR = 260  # pixels of a whole bar
_TRACK: Color = (238, 241, 245)


class Column(NamedTuple):
    """One number of each class.

    Attributes:
        heading: above the bars.
        lengths: of the bars, shares of a whole one, (K,).
        texts: the numbers in words, (K,).
    """

    heading: str
    lengths: np.ndarray
    texts: Sequence[str]


def bar_sheet(labels: LabelSet, columns: Sequence[Column], title: Sequence[str]) -> np.ndarray:
    """A row for each class: its colour, its name, and bars.

    Args:
        labels: names and colours of K classes.
        columns: at least one.
        title: lines above all.

    Returns:
        (H, W, 3) uint8.
    """
    names = [class_line(name, i) for i, name in enumerate(labels.classes)]
    numbers = [[caption_line(text) for text in column.texts] for column in columns]
    headings, heads = (
        [caption_line(column.heading) for column in columns],
        list(map(caption_line, title)),
    )
    left = 2 * _GAP + _FONT + max(name.width(_FONT) for name in names) + 2 * _GAP
    steps = [
        max(_BAR + _GAP + max(line.width(_FONT) for line in lines), heading.width(_FONT)) + 3 * _GAP
        for lines, heading in zip(numbers, headings, strict=True)
    ]
    places = left + np.cumsum([0, *steps])
    width = max([int(places[-1]), *(2 * _GAP + line.width(_FONT) for line in heads)])
    above = len(heads) + 1
    picture = Image.new("RGB", (width, (above + len(names)) * _ROW + 2 * _GAP), PAPER)
    draw = ImageDraw.Draw(picture)

    def write(line: Line, x: int, row: int) -> None:
        line.draw(draw, x, _middle(row), _FONT, INK)

    for row, line in enumerate(heads):
        write(line, _GAP, row)
    for heading, place in zip(headings, places, strict=False):
        write(heading, int(place), above - 1)
    for i, (name, color) in enumerate(zip(names, labels.palette, strict=True)):
        row, middle = above + i, _middle(above + i)
        half = _FONT // 2
        draw.rectangle((_GAP, middle - half, _GAP + _FONT, middle + half), color, FRAME)
        write(name, 2 * _GAP + _FONT, row)
        for column, lines, place in zip(columns, numbers, places, strict=False):
            x, length = int(place), round(_BAR * float(column.lengths[i]))
            draw.rectangle((x, middle - half, x + _BAR, middle + half), _TRACK)
            if length:
                draw.rectangle((x, middle - half, x + length, middle + half), color, FRAME)
            write(lines[i], x + _BAR + _GAP, row)
    return np.asarray(picture)


def _middle(row: int) -> int:
    return _GAP + row * _ROW + _ROW // 2
