"""Examples as one picture: `flaxseg data show`."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flaxseg.data.source import Source
from flaxseg.pictures.overlay import overlay, with_legend

_TILE = 240  # longest side of a picture in pixels
_GAP = 8
_LINE = 20
_PAPER, _INK = 255, (24, 24, 24)
_ALPHA = 0.65
_WIDE = 0.75  # columns per row of a square number of examples


def example_sheet(source: Source, indices: Sequence[int]) -> np.ndarray:
    """Photos, each beside its overlay and above its name, with the classes that occur below.

    Args:
        source: the examples.
        indices: which of them.

    Returns:
        (H', W', 3) uint8.
    """
    cells, labels = [], []
    for index in indices:
        image, label = source[index]
        blend = overlay(image, label, source.labels, _ALPHA)
        cells.append(_cell(_fitted(image), _fitted(blend), source.name(index)))
        labels.append(label.ravel())
    columns = max(1, round(math.sqrt(_WIDE * len(cells))))
    width = max(cell.shape[1] for cell in cells)
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    grid = np.concatenate([_row(row, columns, width) for row in rows])
    return with_legend(grid, np.concatenate(labels), source.labels)


def _fitted(picture: np.ndarray) -> np.ndarray:
    """The picture, its longest side as long as a tile's."""
    height, width = picture.shape[:2]
    scale = _TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return cv2.resize(picture, size, interpolation=how)


def _cell(photo: np.ndarray, blend: np.ndarray, name: str) -> np.ndarray:
    """Both pictures side by side, the name below."""
    height, width = photo.shape[:2]
    cell = np.full((_GAP + height + _LINE, 2 * width + 2 * _GAP, 3), _PAPER, np.uint8)
    cell[_GAP : _GAP + height, _GAP : _GAP + 2 * width] = np.concatenate((photo, blend), axis=1)
    canvas = Image.fromarray(cell)
    font = ImageFont.load_default(13)
    middle = _GAP + height + _LINE // 2
    ImageDraw.Draw(canvas).text((_GAP, middle), name, _INK, font, anchor="lm")
    return np.asarray(canvas)


def _row(cells: list[np.ndarray], columns: int, width: int) -> np.ndarray:
    """Cells beside each other, as high as the highest of them."""
    row = np.full((max(map(len, cells)), columns * width, 3), _PAPER, np.uint8)
    for column, cell in enumerate(cells):
        left = column * width
        row[: len(cell), left : left + cell.shape[1]] = cell
    return row
