"""Chooses the window of a picture that a crop shows."""

import dataclasses

import cv2
import numpy as np

from flaxseg.data.transforms.geometry import Span, View
from flaxseg.errors import ConfigError
from flaxseg.labels import IGNORE

_TRIES = 10


@dataclasses.dataclass(frozen=True)
class RareClasses:
    """Makes crops show classes that are seldom seen.

    A class is drawn from those of the picture with probability proportional to the inverse of its
    frequency, then one of its pixels, which the window contains.

    Attributes:
        chance: share of the crops that are chosen so, 0 to 1.
        pixels: number of pixels of every class in the training set, as
            `flaxseg.data.check_labels` counts them.
    """

    chance: float
    pixels: tuple[int, ...]

    def __post_init__(self):
        if not 0 <= self.chance <= 1:
            raise ConfigError(f"rare classes: chance {self.chance}: give a value from 0 to 1")
        if not self.pixels or min(self.pixels) < 0:
            raise ConfigError(f"rare classes: pixels {self.pixels}: give a count for each class")

    def pick(self, label: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
        """Row and column of a pixel that a window should contain; None where none is labelled."""
        totals = np.maximum(self.pixels, 1)
        weights = (_count(label)[: len(totals)] > 0) / totals
        if not weights.any():
            return None
        chosen = rng.choice(len(totals), p=weights / weights.sum())
        places = np.flatnonzero(label == chosen)
        row, column = divmod(int(places[rng.integers(len(places))]), label.shape[1])
        return row, column


def draw_view(
    label: np.ndarray,
    size: tuple[int, int],
    factor: float,
    rng: np.random.Generator,
    *,
    cat_max_ratio: float = 1.0,
    rare: RareClasses | None = None,
) -> View:
    """Draws a window of `size` pixels in a picture enlarged by `factor`.

    Args:
        label: the picture's label map, (H, W) uint8.
        size: height and width. A picture that is smaller comes to lie at a random place.
        factor: magnification of the picture.
        rng: random numbers.
        cat_max_ratio: a window where one class covers this share of the labelled pixels, or more,
            is drawn anew; the eleventh is taken as it is. 1 takes the first. The rule is
            mmsegmentation's; pixels are counted before they are magnified.
        rare: which windows are to contain a pixel of a rare class.
    """

    def draw() -> View:
        wanted = None
        if rare is not None and rng.uniform() < rare.chance:
            wanted = rare.pick(label, rng)
        row, column = wanted or (None, None)
        return View(
            _draw_span(label.shape[0], size[0], factor, rng, row),
            _draw_span(label.shape[1], size[1], factor, rng, column),
        )

    view = draw()
    if cat_max_ratio < 1:
        for _ in range(_TRIES):
            if largest_share(label[view.window]) < cat_max_ratio:
                break
            view = draw()
    return view


def largest_share(label: np.ndarray) -> float:
    """The most frequent class's share of the labelled pixels, 0 to 1; 1 where none is labelled."""
    counts = _count(label)[:IGNORE]
    total = counts.sum()
    return float(counts.max() / total) if total else 1.0


def _count(label: np.ndarray) -> np.ndarray:
    """Number of pixels of every label value, (256,); three times as fast as np.bincount."""
    return cv2.calcHist([label], [0], None, [256], [0, 256]).reshape(-1)


def _draw_span(
    length: int, size: int, factor: float, rng: np.random.Generator, wanted: int | None
) -> Span:
    """Draws a window along one axis.

    Args:
        length: pixels of the source.
        size: pixels of the window.
        factor: magnification.
        rng: random numbers.
        wanted: source pixel that the window must contain.
    """
    scaled = max(1, round(length * factor))
    if scaled <= size:
        return Span(0, length, int(rng.integers(size - scaled + 1)), scaled)
    extent = min(length, max(1, round(size / factor)))
    first, last = 0, length - extent
    if wanted is not None:
        first, last = max(first, wanted - extent + 1), min(last, wanted)
    start = int(rng.integers(first, last + 1))
    return Span(start, start + extent, 0, size)
