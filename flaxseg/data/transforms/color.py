"""Changes of colours: drawn once per picture, applied to 8-bit RGB."""

import dataclasses
import functools

import cv2
import numpy as np

from flaxseg.data.transforms.geometry import Recolor
from flaxseg.errors import ConfigError

_LUMA = np.array((0.299, 0.587, 0.114))
_BYTES = np.arange(256, dtype=np.float32)
_HUES = 180  # OpenCV's full circle in 8 bits


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Random brightness, contrast, saturation and hue, each uniform around no change.

    Attributes:
        brightness: largest change of the factor on all values, 0 to 1.
        contrast: likewise, on the distance from the picture's mean grey.
        saturation: likewise, on the distance from each pixel's own grey.
        hue: largest turn, as a part of the full circle, 0 to 0.5.
    """

    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.0

    def __post_init__(self):
        ranges = self._ranges
        if not all(0 <= v <= top for v, top in zip(ranges, (1, 1, 1, 0.5), strict=True)):
            raise ConfigError(
                f"color_jitter {ranges}: give brightness, contrast and saturation from "
                "0 to 1 and hue from 0 to 0.5"
            )

    @property
    def _ranges(self) -> tuple[float, float, float, float]:
        return self.brightness, self.contrast, self.saturation, self.hue

    def draw(self, rng: np.random.Generator) -> Recolor:
        """Draws the change for one picture."""
        draws = rng.uniform(-1, 1, 4) * self._ranges
        return _Jitter(1 + draws[0], 1 + draws[1], 1 + draws[2], draws[3])


@dataclasses.dataclass(frozen=True)
class _Jitter:
    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if (self.brightness, self.contrast, self.saturation) != (1, 1, 1):
            image = cv2.transform(image, self._matrix(image))
        if self.hue:
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
            hsv[..., 0] += np.uint8(round(256 * self.hue) % 256)  # wraps, as hue does
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
        return image

    def _matrix(self, image: np.ndarray) -> np.ndarray:
        """All but hue as one affine map of RGB, (3, 4)."""
        mean = np.dot(_LUMA, cv2.mean(image)[:3])
        gain = self.brightness * self.contrast
        offset = self.brightness * (1 - self.contrast) * mean
        grey = np.broadcast_to(_LUMA, (3, 3))
        mix = gain * (self.saturation * np.eye(3) + (1 - self.saturation) * grey)
        return np.column_stack((mix, np.full(3, offset)))


@dataclasses.dataclass(frozen=True)
class PhotometricDistortion:
    """Random brightness, contrast, saturation and hue, each with probability 0.5.

    mmsegmentation's PhotoMetricDistortion, step by step in 8 bits: results are cut off to 0 to 255
    and rounded down after each change; contrast, which scales about black, comes before saturation
    and hue or after them by a coin; saturation scales and hue turns in OpenCV's HSV.

    Attributes:
        brightness: largest amount added, in grey levels.
        contrast: lowest and highest factor.
        saturation: lowest and highest factor.
        hue: a whole number from -hue to hue - 1 is added to the hue, in units of 2 degrees.
    """

    brightness: float = 32
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: int = 18

    def __post_init__(self):
        if not 0 <= self.brightness <= 255:
            raise ConfigError(f"brightness {self.brightness}: give 0 to 255 grey levels")
        for name, (low, high) in {
            "contrast": self.contrast,
            "saturation": self.saturation,
        }.items():
            if not 0 <= low <= high:
                raise ConfigError(f"{name} {low, high}: give two factors, 0 <= lowest <= highest")
        if not 0 <= self.hue <= _HUES // 2:
            raise ConfigError(f"hue {self.hue}: give a whole number from 0 to {_HUES // 2}")

    def draw(self, rng: np.random.Generator) -> Recolor:
        """Draws the change for one picture."""
        added, scaled, saturated, turned, last = rng.uniform(size=5) < 0.5
        return _Distortion(
            brightness=rng.uniform(-self.brightness, self.brightness) if added else 0.0,
            contrast=rng.uniform(*self.contrast) if scaled else 1.0,
            saturation=rng.uniform(*self.saturation) if saturated else 1.0,
            hue=int(rng.integers(-self.hue, self.hue)) if turned and self.hue else 0,
            contrast_last=bool(last),
        )


@dataclasses.dataclass(frozen=True)
class _Distortion:
    """The change in steps that map bytes to bytes, so that a table of 256 entries does each."""

    brightness: float
    contrast: float
    saturation: float
    hue: int
    contrast_last: bool

    def __call__(self, image: np.ndarray) -> np.ndarray:
        tables = [_scaled(1.0, self.brightness)] if self.brightness else []
        if self.contrast != 1 and not self.contrast_last:
            tables.append(_scaled(self.contrast))
        image = _look_up(image, tables)
        if self.saturation != 1:
            image = _change_hsv(image, 1, _scaled(self.saturation))
        if self.hue:
            image = _change_hsv(image, 0, _turned(self.hue))
        if self.contrast != 1 and self.contrast_last:
            image = cv2.LUT(image, _scaled(self.contrast))
        return image


def _scaled(factor: float, offset: float = 0.0) -> np.ndarray:
    """What every byte becomes when scaled and moved, cut off and rounded down, (256,) uint8."""
    values = _BYTES * np.float32(factor) + np.float32(offset)
    return np.minimum(np.maximum(values, 0), 255).astype(np.uint8)


def _turned(hue: int) -> np.ndarray:
    """What every hue becomes when turned, (256,) uint8."""
    return ((np.arange(256) + hue) % _HUES).astype(np.uint8)


def _look_up(image: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    """Sends all values through tables, one after the other, in one pass over the picture."""
    if not tables:
        return image
    return cv2.LUT(image, functools.reduce(lambda first, then: then[first], tables))


def _change_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Sends hue (channel 0) or saturation (1) of an RGB picture through a table."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    changed = cv2.LUT(cv2.extractChannel(hsv, channel), table)
    cv2.insertChannel(changed, hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
