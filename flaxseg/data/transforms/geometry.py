"""Moves picture and label map together: resize, cut, pad, flip and rotate."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

from flaxseg.data.source import Example
from flaxseg.errors import ConfigError
from flaxseg.labels import IGNORE

MEAN_PIXEL = (124, 116, 104)
"""ImageNet's mean colour, RGB: what a crop shows beyond the border of its picture."""

Interpolation = Literal["bilinear", "nearest"]
"""How a resized picture gets its pixels; label maps always take the nearest."""

Recolor = Callable[[np.ndarray], np.ndarray]
"""A change of colours alone, of an image (H, W, 3) uint8 to another; the argument is not written
to."""

MODES = {"bilinear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST_EXACT}
_WARP_MODES = {"bilinear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST}


@dataclasses.dataclass(frozen=True)
class Span:
    """Along one axis: source pixels start to stop fill `size` result pixels from `offset` on."""

    start: int
    stop: int
    offset: int
    size: int

    @property
    def step(self) -> float:
        """Source pixels per result pixel."""
        return (self.stop - self.start) / self.size

    @property
    def middle(self) -> float:
        """The centre of the filled pixels, where pixel 0 reaches from -0.5 to 0.5."""
        return self.offset + (self.size - 1) / 2

    @property
    def origin(self) -> float:
        """The source position that result pixel 0 would show."""
        return self.start - 0.5 + (0.5 - self.offset) * self.step


@dataclasses.dataclass(frozen=True)
class View:
    """What part of a source is shown where on a canvas.

    Attributes:
        rows: along the height.
        columns: along the width.
        angle: degrees, by which the canvas shows it turned counter-clockwise about the middle of
            that part. Corners that come free show what lies beside the part.
    """

    rows: Span
    columns: Span
    angle: float = 0.0

    @property
    def window(self) -> tuple[slice, slice]:
        """The source pixels of the part."""
        return (
            slice(self.rows.start, self.rows.stop),
            slice(self.columns.start, self.columns.stop),
        )


def whole(shape: tuple[int, ...], size: tuple[int, int]) -> View:
    """The view that stretches a source of height and width `shape` over a canvas of `size`."""
    return View(Span(0, shape[0], 0, size[0]), Span(0, shape[1], 0, size[1]))


def show(
    example: Example,
    view: View,
    size: tuple[int, int],
    recolor: Recolor,
    interpolation: Interpolation = "bilinear",
) -> Example:
    """Draws a view on a canvas.

    What is shown is cut out before it is resized, so the work does not grow with the source.

    Args:
        example: the source.
        view: what is shown where.
        size: height and width of the canvas.
        recolor: applied to the source's pixels, not to the canvas around them.
        interpolation: of the picture.

    Returns:
        The canvas; `MEAN_PIXEL` and label 255 where it shows nothing of the source.
    """
    if view.angle:
        return _rotated(example, view, size, recolor, interpolation)
    part = Example(example.image[view.window], example.label[view.window])
    image, label = resize(part, (view.rows.size, view.columns.size), interpolation)
    return _pad(Example(recolor(image), label), view, size)


def resize(
    example: Example, size: tuple[int, int], interpolation: Interpolation = "bilinear"
) -> Example:
    """Resizes to (height, width): the label map takes the nearest pixel's class."""
    if example.label.shape == size:
        return example
    wide_high = (size[1], size[0])
    return Example(
        cv2.resize(example.image, wide_high, interpolation=MODES[interpolation]),
        cv2.resize(example.label, wide_high, interpolation=cv2.INTER_NEAREST_EXACT),
    )


def flip(
    example: Example, horizontal: bool, vertical: bool, mirror: np.ndarray | None = None
) -> Example:
    """Mirrors left and right, top and bottom, or both.

    Args:
        example: picture and label map.
        horizontal: whether left and right change places.
        vertical: whether top and bottom do.
        mirror: what every label becomes where left and right change places, (256,) uint8; None
            leaves them as they are.
    """
    if not (horizontal or vertical):
        return example
    code = -1 if horizontal and vertical else int(horizontal)
    label = cv2.flip(example.label, code)
    if horizontal and mirror is not None:
        label = cv2.LUT(label, mirror)
    return Example(cv2.flip(example.image, code), label)


def fit_factor(shape: tuple[int, ...], base_size: tuple[int, int]) -> float:
    """The largest magnification of a picture of height and width `shape` that fits into a size.

    Args:
        shape: height and width first.
        base_size: longer and shorter side, in either order, whichever way up the picture is.
    """
    return min(max(base_size) / max(shape[:2]), min(base_size) / min(shape[:2]))


def check_size(size: tuple[int, int]) -> None:
    """Raises `ConfigError` unless both sides of an image have a pixel."""
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"image size {size}: give height and width, at least 1 pixel each")


def check_interpolation(interpolation: str) -> None:
    """Raises `ConfigError` for an unknown kind of interpolation."""
    if interpolation not in MODES:
        raise ConfigError(f"interpolation {interpolation!r}: use bilinear or nearest")


def _pad(example: Example, view: View, size: tuple[int, int]) -> Example:
    rows, columns = view.rows, view.columns
    if (rows.size, columns.size) == size:
        return example
    below, right = size[0] - rows.offset - rows.size, size[1] - columns.offset - columns.size
    border = (rows.offset, below, columns.offset, right, cv2.BORDER_CONSTANT)
    return Example(
        cv2.copyMakeBorder(example.image, *border, value=MEAN_PIXEL),
        cv2.copyMakeBorder(example.label, *border, value=IGNORE),
    )


def _rotated(
    example: Example,
    view: View,
    size: tuple[int, int],
    recolor: Recolor,
    interpolation: Interpolation,
) -> Example:
    """`show` for a turned view: one interpolation does scale, place and rotation."""
    matrix = _to_source(view)
    rows, columns = _seen(matrix, size, example.label.shape)
    matrix[:, 2] -= (columns.start, rows.start)
    wide_high = (size[1], size[0])
    image = cv2.warpAffine(
        recolor(example.image[rows, columns]),
        matrix,
        wide_high,
        flags=_WARP_MODES[interpolation] | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=MEAN_PIXEL,
    )
    label = cv2.warpAffine(
        example.label[rows, columns],
        matrix,
        wide_high,
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=IGNORE,
    )
    return Example(image, label)


def _to_source(view: View) -> np.ndarray:
    """The source position (x, y) of a canvas position (x, y, 1), (2, 3) float64."""
    angle = math.radians(view.angle)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = np.array([view.columns.middle, view.rows.middle])
    steps = np.diag([view.columns.step, view.rows.step])
    origin = np.array([view.columns.origin, view.rows.origin])
    return np.column_stack((steps @ turn, origin + steps @ (middle - turn @ middle)))


def _seen(matrix: np.ndarray, size: tuple[int, int], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a source of this shape that hold all that a canvas of this size shows."""
    bottom, right = size[0] - 1, size[1] - 1
    corners = matrix @ np.array([(0, 0, 1), (right, 0, 1), (0, bottom, 1), (right, bottom, 1)]).T
    low = np.floor(corners.min(axis=1)).astype(int) - 1
    high = np.ceil(corners.max(axis=1)).astype(int) + 2
    columns, rows = (
        slice(max(0, int(first)), min(length, int(end)))
        for first, end, length in zip(low, high, (shape[1], shape[0]), strict=True)
    )
    return rows, columns
