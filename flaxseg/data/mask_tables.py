"""Reads masks again that were checked before: by tables of values, without looking for anything.

That is five times as fast as `Reading.read`, which finds out what a file holds. It is for PNG files
of 8 bits and of palettes, as most masks are.
"""

from typing import Any

import cv2
import numpy as np

from flaxseg.data.mask_files import EVEN
from flaxseg.data.mask_ways import Way
from flaxseg.data.masks import Reading
from flaxseg.labels import IGNORE
from flaxseg.pictures.integrity import PNG_MAGIC
from flaxseg.pictures.open import decode, open_header

_DEPTH_AT, _TYPE_AT = 24, 25  # in the IHDR chunk: bits per channel, and what the channels are
_GREY, _RGB, _PALETTE = 0, 2, 3


class MaskTables:
    """The tables of a reading."""

    def __init__(self, reading: Reading):
        """Makes them."""
        ways = reading.ways
        # A file with a palette counts as grey where its entries are the greys of their numbers.
        alike = ways["palette"].by == ways["grey"].by
        self._ways = {_GREY: ways["grey"], _RGB: ways["colour"]}
        self._ways |= {_PALETTE: ways["palette"]} if alike else {}
        self._small = {kind: _numbers(way) for kind, way in self._ways.items()}
        self._colors: dict[int, np.ndarray] = {}

    def read(self, data: bytes) -> np.ndarray | None:
        """The class ids of a mask, (H, W) uint8; None if it is not of a kind that is read here.

        Args:
            data: the bytes of a file in which `Reading.problem` has found nothing.
        """
        if not data.startswith(PNG_MAGIC):
            return None
        kind, depth = data[_TYPE_AT], data[_DEPTH_AT]
        way = self._ways.get(kind)
        if way is None or way.nearest or (depth != 8 and kind != _PALETTE):
            return None
        if kind == _PALETTE and not way.painted:
            return cv2.LUT(_indices(data), self._small[kind])
        pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.shape[2:] != (() if kind == _GREY else (3,)):
            return None
        if kind == _GREY:
            return cv2.LUT(pixels, self._small[kind])
        if not way.painted:  # all channels are equal, or red alone counts
            return cv2.LUT(np.ascontiguousarray(pixels[..., 2]), self._small[kind])
        packed = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGBA).view("<u4")[..., 0]
        return self._color_table(kind).take(packed & 0xFFFFFF)

    def _color_table(self, kind: int) -> np.ndarray:
        """Class id of every colour that there is; made when the first such mask is read."""
        if kind not in self._colors:
            way = self._ways[kind]
            table = np.full(2**24, IGNORE, np.uint8)
            table[list(way.table)] = list(way.table.values())
            self._colors[kind] = table
        return self._colors[kind]


def _indices(data: bytes) -> np.ndarray:
    """The indices of a file with a palette, (H, W) uint8; OpenCV would turn them into colours."""
    picture = open_header(data, "", 0)  # its area was looked at when it was checked
    decode(data, picture, published=True)
    return np.asarray(picture)


def _numbers(way: Way) -> np.ndarray:
    """Class id of every grey or number from 0 to 255, (256,) uint8."""
    step = EVEN if way.painted else 1
    return np.array([way.table.get(value * step, IGNORE) for value in range(256)], np.uint8)
