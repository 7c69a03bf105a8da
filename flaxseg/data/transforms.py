"""Augmentation on the host: 8-bit pictures and their label maps, with OpenCV.

Every draw comes from the generator that the caller passes, so a seed repeats the augmentation.
Label maps are only ever moved by whole pixels of the nearest kind: no class id is interpolated.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np

from flaxseg.data.source import Example
from flaxseg.errors import ConfigError
from flaxseg.labels import IGNORE

MEAN_PIXEL = (124, 116, 104)
"""ImageNet's mean colour, RGB: what a crop shows beyond the border of its picture."""

Transform = Callable[[Example, np.random.Generator], Example]
"""What a loader applies to every example it reads."""

# The loader's threads already use the cores; OpenCV's own pool would only get in their way.
cv2.setNumThreads(0)

_LUMA = np.array((0.299, 0.587, 0.114))


@dataclasses.dataclass(frozen=True)
class TrainTransform:
    """Random scale, crop, flips and colours, to one image size.

    Attributes:
        image_size: height and width of the result in pixels.
        scale: lowest and highest factor of the picture before a crop, log-uniform; without effect
            for "stretch".
        hflip: probability of a left-right flip.
        vflip: probability of an upside-down flip.
        color_jitter: largest change of brightness, contrast and saturation (each as a factor
            around 1) and of hue (as a part of the full circle, at most 0.5).
        resize: "crop" scales the picture and cuts a window of image_size out of it, filled up with
            the mean colour and label 255; "stretch" resizes the whole picture to image_size.
    """

    image_size: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.0)
    resize: Literal["crop", "stretch"] = "crop"

    def __post_init__(self):
        _check_size(self.image_size)
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"scale {self.scale}: give two factors, 0 < lowest <= highest")
        if not all(0 <= chance <= 1 for chance in (self.hflip, self.vflip)):
            raise ConfigError(f"hflip {self.hflip}, vflip {self.vflip}: give values from 0 to 1")
        if not all(0 <= v <= top for v, top in zip(self.color_jitter, (1, 1, 1, 0.5), strict=True)):
            raise ConfigError(
                f"color_jitter {self.color_jitter}: give brightness, contrast and saturation from "
                "0 to 1 and hue from 0 to 0.5"
            )
        if self.resize not in ("crop", "stretch"):
            raise ConfigError(f"resize {self.resize!r}: use crop or stretch")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments one example; the result has `image_size`."""
        jitter = _draw_jitter(rng, self.color_jitter)
        if self.resize == "stretch":
            image, label = _stretch(example, self.image_size)
            result = Example(_apply_jitter(image, jitter), label)
        else:
            factor = np.exp(rng.uniform(*np.log(self.scale)))
            result = _random_crop(example, self.image_size, factor, jitter, rng)
        return _flip(result, rng.uniform() < self.hflip, rng.uniform() < self.vflip)


@dataclasses.dataclass(frozen=True)
class EvalTransform:
    """The picture as it is, or stretched to one size.

    Attributes:
        size: height and width in pixels; None leaves the picture untouched.
    """

    size: tuple[int, int] | None = None

    def __post_init__(self):
        if self.size is not None:
            _check_size(self.size)

    def __call__(self, example: Example, rng: np.random.Generator | None = None) -> Example:
        """Resizes one example; nothing is random."""
        return example if self.size is None else _stretch(example, self.size)


@dataclasses.dataclass(frozen=True)
class _Jitter:
    brightness: float
    contrast: float
    saturation: float
    hue: float


def _draw_jitter(rng: np.random.Generator, ranges: tuple[float, ...]) -> _Jitter:
    draws = rng.uniform(-1, 1, 4) * ranges
    return _Jitter(1 + draws[0], 1 + draws[1], 1 + draws[2], draws[3])


def _apply_jitter(image: np.ndarray, jitter: _Jitter) -> np.ndarray:
    """Changes the colours of a picture, (H, W, 3) uint8.

    Contrast pulls towards the picture's mean grey and saturation towards each pixel's own grey.
    """
    if (jitter.brightness, jitter.contrast, jitter.saturation) != (1, 1, 1):
        mean = np.dot(_LUMA, cv2.mean(image)[:3])
        gain = jitter.brightness * jitter.contrast
        offset = jitter.brightness * (1 - jitter.contrast) * mean
        grey = np.broadcast_to(_LUMA, (3, 3))
        mix = gain * (jitter.saturation * np.eye(3) + (1 - jitter.saturation) * grey)
        image = cv2.transform(image, np.column_stack((mix, np.full(3, offset))))
    if jitter.hue:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
        hsv[..., 0] += np.uint8(round(256 * jitter.hue) % 256)  # wraps, as hue does
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return image


def _random_crop(
    example: Example,
    size: tuple[int, int],
    factor: float,
    jitter: _Jitter,
    rng: np.random.Generator,
) -> Example:
    """A window of `size` pixels at a random place of the picture enlarged by `factor`.

    The window is cut before it is resized, so the work does not grow with the picture.
    """
    height, width = example.label.shape
    rows = _crop_span(height, size[0], factor, rng)
    columns = _crop_span(width, size[1], factor, rng)
    cut = np.s_[rows.start : rows.stop, columns.start : columns.stop]
    image, label = _stretch(
        Example(example.image[cut], example.label[cut]), (rows.size, columns.size)
    )

    canvas = np.full((*size, 3), MEAN_PIXEL, np.uint8)
    target = np.full(size, IGNORE, np.uint8)
    place = np.s_[
        rows.offset : rows.offset + rows.size, columns.offset : columns.offset + columns.size
    ]
    canvas[place] = _apply_jitter(image, jitter)
    target[place] = label
    return Example(canvas, target)


@dataclasses.dataclass(frozen=True)
class _Span:
    """Along one axis: source pixels start to stop fill `size` result pixels from `offset` on."""

    start: int
    stop: int
    offset: int
    size: int


def _crop_span(length: int, size: int, factor: float, rng: np.random.Generator) -> _Span:
    scaled = max(1, round(length * factor))
    if scaled <= size:
        return _Span(0, length, int(rng.integers(size - scaled + 1)), scaled)
    extent = min(length, max(1, round(size / factor)))
    start = int(rng.integers(length - extent + 1))
    return _Span(start, start + extent, 0, size)


def _stretch(example: Example, size: tuple[int, int]) -> Example:
    """Resizes to (height, width): bilinear for the picture, nearest for the label map."""
    if example.label.shape == size:
        return example
    wide_high = (size[1], size[0])
    return Example(
        cv2.resize(example.image, wide_high, interpolation=cv2.INTER_LINEAR),
        cv2.resize(example.label, wide_high, interpolation=cv2.INTER_NEAREST_EXACT),
    )


def _flip(example: Example, horizontal: bool, vertical: bool) -> Example:
    if horizontal:
        example = Example(cv2.flip(example.image, 1), cv2.flip(example.label, 1))
    if vertical:
        example = Example(cv2.flip(example.image, 0), cv2.flip(example.label, 0))
    return example


def _check_size(size: tuple[int, int]) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"image size {size}: give height and width, at least 1 pixel each")
