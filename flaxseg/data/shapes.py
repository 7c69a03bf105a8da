"""Textured shapes drawn on the fly: a data set without files.

Five kinds of shape, each with a tendency in colour and texture, lie over each other on a clouded
background. No single cue decides: neighbouring hues overlap and every fifth shape borrows the
texture of another kind, so a network has to combine outline, texture and colour.
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np

from flaxseg.data.source import Example
from flaxseg.errors import ConfigError, DataError
from flaxseg.labels import LabelSet

LABELS = LabelSet(
    "shapes",
    ("background", "disc", "square", "triangle", "star", "cross"),
    ((64, 64, 64), (230, 60, 60), (240, 180, 40), (70, 180, 70), (60, 120, 230), (170, 80, 200)),
)
DEFAULT_SIZE = (96, 96)
SPLITS = {"train": 2000, "val": 200}
"""Number of images of each split."""

_MIN_SIDE = 16
_KINDS = LABELS.num_classes - 1
_VARIANTS = 8
_DIAMETER = (0.35, 0.65)  # of the shorter side
_HUE_SPREAD = 22.0  # degrees; the kinds' hues are 72 apart
_BORROWED_TEXTURE = 0.2
_SHIFT = 4  # fractional bits of the vertices


class Shapes:
    """Drawn scenes, a pure function of split, position and image size.

    The drawings of the splits come from different seeds, so no image is in two of them.
    """

    labels = LABELS

    def __init__(
        self,
        split: str = "train",
        *,
        image_size: tuple[int, int] = DEFAULT_SIZE,
        length: int | None = None,
    ):
        """Names the scenes to draw; nothing is drawn yet.

        Args:
            split: "train" or "val".
            image_size: height and width in pixels, at least 16 each.
            length: number of images, by default 2000 for training and 200 for validation.

        Raises:
            DataError: unknown split.
            ConfigError: image size or length out of range.
        """
        if split not in SPLITS:
            raise DataError(f"shapes has no split {split!r}: use one of {', '.join(SPLITS)}")
        if min(image_size) < _MIN_SIDE:
            raise ConfigError(
                f"image size {image_size[0]} x {image_size[1]} is too small for shapes: "
                f"give at least {_MIN_SIDE} x {_MIN_SIDE}"
            )
        self._length = SPLITS[split] if length is None else length
        if self._length < 1:
            raise ConfigError(f"shapes with {length} images: give at least 1")
        self._split = split
        self._size = (int(image_size[0]), int(image_size[1]))

    def __len__(self) -> int:
        return self._length

    def name(self, index: int) -> str:
        """Split and number of a scene, such as "shapes/train/000012"."""
        return f"shapes/{self._split}/{index:06d}"

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self._length:
            raise IndexError(f"shapes has {self._length} images, index {index} is out of range")
        rng = np.random.default_rng((list(SPLITS).index(self._split), index))
        return draw_scene(rng, self._size)


def draw_scene(rng: np.random.Generator, size: tuple[int, int]) -> Example:
    """Draws one scene of 2 to 5 shapes.

    Args:
        rng: source of every choice.
        size: height and width in pixels.

    Returns:
        The scene; a pixel belongs to the topmost shape that covers at least half of it.
    """
    bank = _texture_bank(max(size))
    canvas = _background(rng, size, bank)
    label = np.zeros(size, np.uint8)
    for _ in range(rng.integers(2, 6)):
        _add_shape(rng, canvas, label, bank)
    canvas += rng.uniform(4.0, 14.0) * _window(rng, bank.noise, size)
    return Example(np.clip(canvas, 0, 255).astype(np.uint8), label)


class _Bank(NamedTuple):
    """Random fields larger than an image; scenes cut their windows from them."""

    textures: np.ndarray  # (kinds, variants, S, S) float32 in -1..1
    clouds: np.ndarray  # (variants, S, S) float32 in -1..1
    noise: np.ndarray  # (S, S, 3) float32, unit variance


@functools.lru_cache(maxsize=4)
def _texture_bank(side: int) -> _Bank:
    rng = np.random.default_rng(side)
    extent = 2 * side
    makers = (_dots, _checks, _stripes, _speckle, _rings)
    textures = [[make(rng, extent) for _ in range(_VARIANTS)] for make in makers]
    clouds = [_smooth_noise(rng, extent, side / 6) for _ in range(_VARIANTS)]
    noise = rng.standard_normal((extent, extent, 3), dtype=np.float32)
    return _Bank(np.asarray(textures), np.asarray(clouds), noise)


def _rotated_grid(rng: np.random.Generator, extent: int) -> tuple[np.ndarray, np.ndarray]:
    """Two phases in radians whose period is 7 to 11 pixels along random orthogonal directions."""
    angle, step = rng.uniform(0, np.pi), 2 * np.pi / rng.uniform(7, 11)
    y, x = np.mgrid[:extent, :extent].astype(np.float32)
    across = step * (np.cos(angle) * x + np.sin(angle) * y)
    along = step * (np.cos(angle) * y - np.sin(angle) * x)
    return across.astype(np.float32), along.astype(np.float32)


def _dots(rng: np.random.Generator, extent: int) -> np.ndarray:
    u, v = _rotated_grid(rng, extent)
    return np.tanh(4 * (np.cos(u) + np.cos(v) - 0.7))


def _checks(rng: np.random.Generator, extent: int) -> np.ndarray:
    u, v = _rotated_grid(rng, extent)
    return np.tanh(6 * np.cos(u / 1.5) * np.cos(v / 1.5))


def _stripes(rng: np.random.Generator, extent: int) -> np.ndarray:
    u, _ = _rotated_grid(rng, extent)
    return np.tanh(3 * np.cos(u))


def _speckle(rng: np.random.Generator, extent: int) -> np.ndarray:
    return np.tanh(3 * _smooth_noise(rng, extent, 1.2))


def _rings(rng: np.random.Generator, extent: int) -> np.ndarray:
    y, x = np.mgrid[:extent, :extent].astype(np.float32) / rng.uniform(13, 18)
    radius = np.hypot(y % 1 - 0.5, x % 1 - 0.5)
    return np.tanh(3 * np.cos(2 * np.pi * 2.5 * radius)).astype(np.float32)


def _smooth_noise(rng: np.random.Generator, extent: int, sigma: float) -> np.ndarray:
    field = rng.standard_normal((extent, extent), dtype=np.float32)
    field = cv2.GaussianBlur(field, (0, 0), sigma)
    return np.clip(field / (2 * field.std()), -1, 1)


def _window(rng: np.random.Generator, field: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top = rng.integers(field.shape[0] - size[0] + 1)
    left = rng.integers(field.shape[1] - size[1] + 1)
    return field[top : top + size[0], left : left + size[1]]


def _background(rng: np.random.Generator, size: tuple[int, int], bank: _Bank) -> np.ndarray:
    clouds = _window(rng, bank.clouds[rng.integers(_VARIANTS)], size)
    color = rng.uniform(60, 190) + rng.uniform(-30, 30, 3)
    contrast = rng.uniform(-45, 45, 3)
    return (color + clouds[..., None] * contrast).astype(np.float32)


def _add_shape(
    rng: np.random.Generator, canvas: np.ndarray, label: np.ndarray, bank: _Bank
) -> None:
    """Paints one shape over `canvas` (H, W, 3) and `label` (H, W), both in place."""
    kind = int(rng.integers(1, _KINDS + 1))
    height, width = label.shape
    radius = rng.uniform(*_DIAMETER) * min(height, width) / 2
    center = rng.uniform(0.12, 0.88, 2) * (width, height)
    points = center + radius * _outline(kind, rng.uniform(0, 2 * np.pi))
    left, top = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + 2, (width, height))
    box = np.s_[top:bottom, left:right]

    coverage = _coverage(points - (left, top), (bottom - top, right - left))
    paint = _paint(rng, kind, coverage.shape, bank)
    canvas[box] += (paint - canvas[box]) * (coverage[..., None] * np.float32(1 / 255))
    label[box][coverage >= 128] = kind


def _coverage(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Share of every pixel inside a polygon, 0 to 255."""
    coverage = np.zeros(size, np.uint8)
    vertices = np.round(points * 2**_SHIFT).astype(np.int32)
    cv2.fillPoly(coverage, [vertices], (255,), cv2.LINE_AA, _SHIFT)
    return coverage


def _paint(rng: np.random.Generator, kind: int, size: tuple[int, ...], bank: _Bank) -> np.ndarray:
    """A textured colour patch, (h, w, 3) float32."""
    borrowed = rng.uniform() < _BORROWED_TEXTURE
    pattern = int(rng.integers(_KINDS)) if borrowed else kind - 1
    texture = _window(rng, bank.textures[pattern, rng.integers(_VARIANTS)], (size[0], size[1]))
    hue = (kind - 1) * 360 / _KINDS + rng.normal(0, _HUE_SPREAD)
    color = _hue_to_rgb(hue, rng.uniform(0.25, 0.8), rng.uniform(110, 220))
    contrast = rng.uniform(20, 55) + rng.uniform(-12, 12, 3)
    return color + texture[..., None] * contrast.astype(np.float32)


def _hue_to_rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB 0 to 255 of a hue in degrees, a saturation 0 to 1 and a value 0 to 255."""
    ramp = (np.array((5.0, 3.0, 1.0)) + hue / 60) % 6
    share = np.clip(np.minimum(ramp, 4 - ramp), 0, 1)
    return (value * (1 - saturation * share)).astype(np.float32)


def _outline(kind: int, angle: float) -> np.ndarray:
    """Vertices (N, 2) of a shape of radius 1 about the origin, turned by an angle in radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return _unit_outlines()[kind] @ np.array(((cos, sin), (-sin, cos)))


@functools.cache
def _unit_outlines() -> dict[int, np.ndarray]:
    arm = 0.36  # half the width of the cross's bars
    reach = np.sqrt(1 - arm**2)
    quarter = np.array(((arm, arm), (arm, reach), (-arm, reach), (-arm, arm)))
    turn = np.array(((0.0, 1.0), (-1.0, 0.0)))
    cross = [corner for q in range(4) for corner in quarter @ np.linalg.matrix_power(turn, q)]
    outlines = (_ring(40), _ring(4), _ring(3), _ring(10, inner=0.5), np.array(cross))
    return {kind: outline for kind, outline in enumerate(outlines, start=1)}


def _ring(count: int, inner: float = 1.0) -> np.ndarray:
    """Points on the unit circle; every second one at radius `inner`."""
    angles = np.arange(count) * (2 * np.pi / count)
    radii = np.where(np.arange(count) % 2, inner, 1.0)
    return np.stack((radii * np.cos(angles), radii * np.sin(angles)), axis=1)
