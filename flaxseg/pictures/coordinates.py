"""Where the pixels of a picture lie on a map: the tags of GeoTIFF (OGC 19-008, chapter 7).

A picture says it in one of three ways: a tie point and the size of a pixel, a matrix, or many tie
points. All three are about columns and rows, so that a picture that is turned or of another size
lies in the same place when these are exchanged for the new ones.
"""

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import TiffImagePlugin, TiffTags

from flaxseg.pictures.tiff import read_tags

_SCALE, _POINTS, _MATRIX = 33550, 33922, 34264
_KEYS, _KEY_NUMBERS, _KEY_TEXTS = 34735, 34736, 34737
_NO_DATA, _SOFTWARE = 42113, 305
_TYPES = {
    _SCALE: TiffTags.DOUBLE,
    _POINTS: TiffTags.DOUBLE,
    _MATRIX: TiffTags.DOUBLE,
    _KEYS: TiffTags.SHORT,
    _KEY_NUMBERS: TiffTags.DOUBLE,
    _KEY_TEXTS: TiffTags.ASCII,
    _NO_DATA: TiffTags.ASCII,
    _SOFTWARE: TiffTags.ASCII,
}
_RASTER_TYPE, _PIXEL_IS_POINT = 1025, 2
_PROGRAM = "flaxseg"
_SHOWN = 40
_FAR = 1e100
"""Beyond it numbers are damage."""

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Of the pixels of a picture.

    Attributes:
        points: tie points, (N, 6) float64: column, row, 0, and the place on the map; columns count
            from the left and rows from the top edge of the picture, unless `centred`.
        scale: width, height and depth of a pixel on the map, (3,), with one tie point.
        matrix: from (column, row, 0, 1) to the place, (4, 4), in place of them.
        keys: the tags that say of which map, as they are stored.
        centred: columns and rows count from the centre of the first pixel.
        no_data: the value that stands for nothing in the picture, as it is stored.
    """

    points: np.ndarray
    scale: np.ndarray | None = None
    matrix: np.ndarray | None = None
    keys: Mapping[int, Any] = dataclasses.field(default_factory=dict)
    centred: bool = False
    no_data: str = ""

    def shown(self, stored: Size, orientation: int) -> "Coordinates":
        """Those of the picture as `flaxseg.pictures.turn` turns it.

        Args:
            stored: its height and width before.
            orientation: EXIF's, 1 to 8.
        """
        height, width = stored
        step = np.eye(3)
        if orientation > 4:
            step, height, width = step[[1, 0, 2]], width, height
        if orientation in (3, 4, 7, 8):
            step = np.array([[1, 0, 0], [0, -1, height], [0, 0, 1]]) @ step
        if orientation in (2, 3, 6, 7):
            step = np.array([[-1, 0, width], [0, 1, 0], [0, 0, 1]]) @ step
        return self._moved(step)

    def resized(self, before: Size, after: Size) -> "Coordinates":
        """Those of the picture stretched from one height and width to another."""
        return self._moved(np.diag([after[1] / before[1], after[0] / before[0], 1]))

    def _moved(self, step: np.ndarray) -> "Coordinates":
        """After a step from (column, row, 1), from the edges, to the new ones, (3, 3)."""
        if np.array_equal(step, np.eye(3)):
            return self
        if self.centred:
            half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
            step = np.linalg.inv(half) @ step @ half
        linear, shift = step[:2, :2], step[:2, 2]
        points, scale, matrix = self.points.copy(), self.scale, self.matrix
        points[:, :2] = points[:, :2] @ linear.T + shift
        if scale is not None and (linear[0, 1] or linear.min() < 0):
            # The size of a pixel cannot tell that rows were exchanged or turned round.
            points, scale, matrix = points[:0], None, self._as_matrix()
        elif scale is not None:
            scale = np.array([scale[0] / linear[0, 0], scale[1] / linear[1, 1], scale[2]])
        if matrix is not None:
            back = np.eye(4)
            back[np.ix_([0, 1, 3], [0, 1, 3])] = np.linalg.inv(step)
            matrix = matrix @ back
        return dataclasses.replace(self, points=points, scale=scale, matrix=matrix)

    def _as_matrix(self) -> np.ndarray:
        """The matrix that says the same as the size of a pixel and the first tie point."""
        assert self.scale is not None
        # Rows go down, and heights of pixels are positive: so reads everyone a wrong sign, too.
        across, down = self.scale[0], -abs(self.scale[1])
        column, row, _, x, y, z = self.points[0]
        matrix = np.diag([across, down, self.scale[2], 1.0])
        matrix[:3, 3] = x - column * across, y - row * down, z
        return matrix

    def tags(self, no_data: str = "") -> TiffImagePlugin.ImageFileDirectory_v2:
        """The tags of a TIFF that lies here.

        Args:
            no_data: the value that stands for nothing in that one; empty: there is none.
        """
        values: dict[int, Any] = {
            _SCALE: self.scale,
            _POINTS: self.points.ravel(),
            _MATRIX: None if self.matrix is None else self.matrix.ravel(),
            **self.keys,
            _NO_DATA: no_data or None,
            _SOFTWARE: _PROGRAM,
        }
        found = TiffImagePlugin.ImageFileDirectory_v2()
        for tag, value in values.items():
            if value is not None and len(value):
                found.tagtype[tag] = _TYPES[tag]
                found[tag] = tuple(value.tolist()) if isinstance(value, np.ndarray) else value
        return found


def read_coordinates(data: bytes) -> Coordinates | None:
    """The coordinates of a picture as it is stored; None if it has none.

    Args:
        data: the bytes of a picture file that was read before.

    Raises:
        ValueError: there are some, and they make no sense.
    """
    tags = read_tags(io.BytesIO(data), _TYPES)
    if not {_SCALE, _POINTS, _MATRIX} & tags.keys():
        return None
    points = _numbers(tags, _POINTS)
    scale, matrix = _numbers(tags, _SCALE), _numbers(tags, _MATRIX)
    if matrix.size not in (0, 16) or scale.size not in (0, 2, 3) or points.size % 6:
        sizes = f"{scale.size}, {points.size} and {matrix.size}"
        raise ValueError(f"its scale, tie points and matrix have {sizes} numbers")
    if not (scale[:2].all() and (matrix.size or points.size)):
        raise ValueError("they say nothing")
    found = Coordinates(
        points.reshape(-1, 6),
        keys=_keys(tags),
        centred=_centred(_numbers(tags, _KEYS)),
        no_data=" ".join(str(tags.get(_NO_DATA, "")).split())[:_SHOWN],
    )
    # Where a file has several ways, the size of a pixel is read first, as others do.
    if scale.size and points.size:
        return dataclasses.replace(found, scale=np.append(scale, 0.0)[:3])
    if matrix.size:
        return dataclasses.replace(found, points=found.points[:0], matrix=matrix.reshape(4, 4))
    return found


def is_ours(path: Path) -> bool:
    """Whether a file is a TIFF that was written with `Coordinates.tags`."""
    try:
        with path.open("rb") as file:
            return read_tags(file, [_SOFTWARE]).get(_SOFTWARE) == _PROGRAM
    except (OSError, ValueError):
        return False


def _numbers(tags: Mapping[int, Any], tag: int) -> np.ndarray:
    try:
        found = np.asarray(tags.get(tag, ()), np.float64).ravel()
    except (TypeError, ValueError):
        raise ValueError(f"tag {tag} holds no numbers") from None
    sensible = np.abs(found) < _FAR  # False of NaN
    if not sensible.all():
        raise ValueError(f"tag {tag} holds {found[~sensible][0]}")
    return found


def _keys(tags: Mapping[int, Any]) -> dict[int, Any]:
    """The tags that say of which map, in a form that can be written."""
    directory, numbers = _numbers(tags, _KEYS), _numbers(tags, _KEY_NUMBERS)
    texts, fits = tags.get(_KEY_TEXTS, ""), ((directory >= 0) & (directory < 2**16)).all()
    if not isinstance(texts, str) or not fits:
        raise ValueError("the keys that name the map are damaged")
    found = {
        _KEYS: tuple(directory.astype(int).tolist()),
        _KEY_NUMBERS: tuple(numbers.tolist()),
        _KEY_TEXTS: texts.encode("latin-1", "replace"),  # as text, letters beyond ASCII were lost
    }
    return {tag: values for tag, values in found.items() if values}


def _centred(keys: np.ndarray) -> bool:
    """Whether the directory of keys says that a pixel is a point: (key, place, count, value) …"""
    entries = keys[4 : len(keys) // 4 * 4].reshape(-1, 4)
    return any(key == _RASTER_TYPE and value == _PIXEL_IS_POINT for key, _, _, value in entries)
