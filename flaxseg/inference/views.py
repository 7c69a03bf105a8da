"""Several looks at one picture, enlarged, shrunk and mirrored, whose probabilities are averaged.

As in mmsegmentation: logits of each look are interpolated to the size of the result and become
probabilities there; mirrored ones are mirrored back, and the mean of all is taken.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from flaxseg.errors import ConfigError
from flaxseg.inference.pixels import Planes
from flaxseg.inference.windows import Size


@dataclasses.dataclass(frozen=True)
class Views:
    """How often a network looks at a picture.

    Attributes:
        scales: of the size at which it sees the picture otherwise.
        flip: whether it looks at the mirrored picture, too, at each scale.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self):
        shown = " ".join(f"{scale:g}" for scale in self.scales)
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise ConfigError(f"--scales is {shown or 'empty'}: give numbers above 0, such as 1")
        if len({*self.scales}) < len(self.scales):
            raise ConfigError(f"--scales is {shown}: give every scale once")

    def __len__(self) -> int:
        return len(self.scales) * len(self.mirrored)

    @property
    def mirrored(self) -> tuple[bool, ...]:
        """Whether the picture is mirrored, for each look at one scale."""
        return (False, True) if self.flip else (False,)

    @property
    def plain(self) -> bool:
        """Whether it is one look at the picture as it is."""
        return self.scales == (1.0,) and not self.flip


PLAIN = Views()
"""One look at the picture as it is."""


def scaled(size: Size, scale: float) -> Size:
    """Height and width times a number, at least a pixel each."""
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def mirrored_back(planes: Planes) -> Planes:
    """The logits of a mirrored picture in the places of the picture's own pixels."""
    return lambda: (plane[:, ::-1] for plane in planes())


def mean_probabilities(views: Sequence[Planes], size: Size, temperature: float = 1.0) -> Planes:
    """The probabilities of one class after the other, as means over several looks.

    Nothing is waited for before they are read; then two maps of each look are held.

    Args:
        views: the logits of each look, gone through twice.
        size: height and width of their maps.
        temperature: what the logits are divided by.
    """

    def read() -> Iterator[np.ndarray]:
        looks = [map(_softmax(planes, size, temperature), planes()) for planes in views]
        for found in zip(*looks, strict=True):
            yield np.asarray(sum(found[1:], found[0]) / np.float32(len(found)))

    return read


def summed_probabilities(
    views: Iterable[Planes], size: Size, count: int, temperature: float = 1.0
) -> Planes:
    """The same, for looks whose logits are large: of one look at a time they are held.

    Args:
        views: the logits of each look, drawn one by one; the probabilities of all classes are held.
        size: height and width of their maps.
        count: number of classes.
        temperature: what the logits are divided by.
    """
    total, looks = np.zeros((count, *size), np.float32), 0
    for planes in views:
        looks += 1
        for sofar, plane in zip(
            total, map(_softmax(planes, size, temperature), planes()), strict=True
        ):
            sofar += plane
    total /= looks
    return lambda: total


def _softmax(planes: Planes, size: Size, temperature: float) -> Callable[[np.ndarray], np.ndarray]:
    """What makes the probabilities of a class of its logits (H, W)."""
    highest, total = np.full(size, -np.inf, np.float32), np.zeros(size, np.float32)
    for plane in planes():
        higher = np.maximum(highest, plane)
        total = total * np.exp((highest - higher) / temperature)
        total += np.exp((plane - higher) / temperature)
        highest = higher
    return lambda plane: np.exp((plane - highest) / temperature) / total
