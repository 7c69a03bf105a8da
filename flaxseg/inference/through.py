"""A network that looks at pictures through windows, a batch of them at a time."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from flaxseg.inference.look import Look, Place, batch_of
from flaxseg.inference.pixels import Pixels, label_and_confidence, split
from flaxseg.inference.windows import Found, Layout, Size, Windows, mean_of, strips_of

R = TypeVar("R")


class Through:
    """Windows of one size fill batches one after the other, across the pictures they belong to."""

    def __init__(
        self,
        look: Look,
        windows: Windows,
        room: Callable[[Size], int],
        temperature: float = 1.0,
    ):
        """Takes what sees a window as a picture of its own.

        Args:
            look: the network.
            windows: where to look.
            room: how many windows of a size it sees together.
            temperature: what the logits are divided by before they become probabilities.
        """
        self._look, self._windows, self._room = look, windows, room
        # With several devices the sums are kept on the first of them.
        self._device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        self._label = jax.jit(lambda total, seen: jnp.argmax(total / seen, -1).astype(jnp.uint8))
        self._pair = jax.jit(lambda total, seen: label_and_confidence(total / seen, temperature))

    def side(self, size: Size) -> Size:
        """Height and width of the windows on a picture of a size."""
        return self._windows.within(size)

    def pixels(self, pictures: Sequence[np.ndarray], confidence: bool = False) -> Iterator[Pixels]:
        """Label map of each picture, and confidence, while the logits of a strip are held.

        Args:
            pictures: (H, W, 3) uint8 each.
            confidence: whether it is wanted.
        """
        if confidence:
            yield from map(split, self._each(pictures, self._strips(self._pair)))
        else:
            yield from map(Pixels, self._each(pictures, self._strips(self._label)))

    def logits(self, pictures: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """The logits of each picture, (H, W, K) float32."""
        return self._each(pictures, lambda *given: np.asarray(mean_of(*given))[0])

    def _strips(self, read: Callable[..., jax.Array]) -> Callable[..., np.ndarray]:
        return lambda found, layout: strips_of(found, layout, read)[0]

    def _each(
        self, pictures: Sequence[np.ndarray], finish: Callable[[Iterable[Found], Layout], R]
    ) -> Iterator[R]:
        """What is made of the windows of each picture."""
        for side, some in itertools.groupby(pictures, key=lambda each: self.side(_size(each))):
            alike = [*some]
            corners = bool(self._look.enlarged_by(side))
            of_picture = itertools.groupby(self._found(alike, side), key=lambda pair: pair[0])
            for index, windows in of_picture:
                layout = Layout(_size(alike[index]), side, corners, self._device)
                yield finish((window for _, window in windows), layout)

    def _found(self, pictures: Sequence[np.ndarray], side: Size) -> Iterator[tuple[int, Found]]:
        """All windows, each with the index of its picture."""
        places = [
            (index, corner)
            for index, picture in enumerate(pictures)
            for corner in self._windows.corners(_size(picture))
        ]
        count, place = self._room(side), Place(side, told=False)
        height, width = side

        def looked(some: Sequence[tuple[int, tuple[int, int]]]) -> jax.Array:
            cut = [
                pictures[index][top : top + height, left : left + width]
                for index, (top, left) in some
            ]
            logits = self._look(*batch_of(cut, place, count, np.zeros(3, np.uint8)), place).logits
            return jax.device_put(logits, self._device)

        batches = [places[start : start + count] for start in range(0, len(places), count)]
        for some, logits in zip(batches, _one_ahead(map(looked, batches)), strict=True):
            for number, (index, corner) in enumerate(some):
                yield index, Found(corner, logits, number)


def _size(picture: np.ndarray) -> Size:
    return picture.shape[0], picture.shape[1]


def _one_ahead(items: Iterator[R]) -> Iterator[R]:
    """The items, each made before the one before it is used: the device need not wait."""
    before = [*itertools.islice(items, 1)]
    for item in items:
        yield before.pop()
        before.append(item)
    yield from before
