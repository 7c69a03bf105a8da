"""Names and colours of the classes below a picture."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from flaxseg.labels import IGNORE, LabelSet
from flaxseg.pictures.text import Line, class_line

PAPER, INK, FRAME = (255, 255, 255), (24, 24, 24), (128, 128, 128)

_MIN_FONT, _MAX_FONT = 13, 96

Entry = tuple[Line, np.ndarray]
"""A name, and the picture (h, w, 3) that fills its swatch, repeated: of one pixel for a colour."""


def with_legend(picture: np.ndarray, label: np.ndarray, labels: LabelSet) -> np.ndarray:
    """A picture, pixel for pixel, with the names and colours of the classes that occur below it.

    Args:
        picture: (H, W, 3) uint8, such as `overlay` gives.
        label: class ids of any shape; the classes that occur in it are named.
        labels: names and colours of the classes. A name whose letters no font has is replaced by
            the number of the class.

    Returns:
        (H', W', 3) uint8 with the picture in its upper left corner. It is wider than the picture
        only where a class name would not fit.
    """
    named = entries([label], labels)
    if not named:
        return picture
    height, width = picture.shape[:2]
    return stack([picture, legend(named, width, _font_size(height, width))])


def entries(maps: Iterable[np.ndarray], labels: LabelSet) -> list[Entry]:
    """Name and colour of every class that occurs, in class order."""
    found = {int(i) for label in maps for i in np.unique(label)} - {IGNORE}
    palette = np.asarray(labels.palette, np.uint8)
    return [(class_line(labels.classes[i], i), palette[i, None, None]) for i in sorted(found)]


def legend(named: Sequence[Entry], width: int, size: int) -> np.ndarray:
    """Swatches with names in columns, (H, W, 3) uint8.

    Args:
        named: at least one entry.
        width: the least width in pixels.
        size: of the font in pixels.
    """
    gap = size // 2
    cell = max(line.width(size) for line, _ in named) + size + 3 * gap
    columns = min(max((width - gap) // cell, 1), len(named))
    rows, row_height = -(-len(named) // columns), round(1.6 * size)
    strip = Image.new("RGB", (max(width, cell + gap), rows * row_height + gap), PAPER)
    draw = ImageDraw.Draw(strip)
    for i, (line, fill) in enumerate(named):
        left, top = gap + i % columns * cell, gap // 2 + i // columns * row_height
        middle = top + row_height // 2
        upper, side = middle - size // 2, 2 * (size // 2) + 1
        strip.paste(Image.fromarray(_repeated(fill, side)), (left, upper))
        draw.rectangle((left, upper, left + side - 1, upper + side - 1), outline=FRAME)
        line.draw(draw, left + size + gap, middle, size, INK)
    return np.asarray(strip)


def stack(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures (H, W, 3) below each other, filled up at the right to the widest."""
    width = max(part.shape[1] for part in parts)
    sheet = np.full((sum(part.shape[0] for part in parts), width, 3), PAPER, np.uint8)
    top = 0
    for part in parts:
        sheet[top : top + part.shape[0], : part.shape[1]] = part
        top += part.shape[0]
    return sheet


def _repeated(fill: np.ndarray, side: int) -> np.ndarray:
    """A picture (h, w, 3) beside and below itself, as a square."""
    y, x = np.indices((side, side))
    return fill[y % fill.shape[0], x % fill.shape[1]]


def _font_size(height: int, width: int) -> int:
    """Readable when the picture is shown at its own size, and when it is shrunk to a screen."""
    return min(max(round(math.sqrt(height * width) / 40), _MIN_FONT), _MAX_FONT)
