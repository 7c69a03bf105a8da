"""Training batches on the devices, one ahead of the step that uses them."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from flaxseg.sharding import put_batch


class Fed(NamedTuple):
    """One batch on its way through a step.

    Attributes:
        image: (B, H, W, 3) uint8, split over the mesh.
        label: (B, H, W) uint8, split over the mesh.
        index: positions in the source, (B,), on the host.
        position: state of the data iterator after this batch, to be saved with the step.
    """

    image: jax.Array
    label: jax.Array
    index: np.ndarray
    position: Any


class Feed:
    """Hands out batches; `prefetch` fetches the next one while the device still computes."""

    def __init__(self, loader: Iterable, mesh: Mesh, position: Any = None):
        """Starts at the beginning, or behind the batch at whose step `position` was saved."""
        self._iterator: Any = iter(loader)
        self._mesh = mesh
        self._next: Fed | None = None
        if position is not None:
            self._iterator.set_state(position)

    def peek(self) -> Fed:
        """The next batch, which stays the next one."""
        self.prefetch()
        assert self._next is not None
        return self._next

    def prefetch(self) -> None:
        """Fetches the next batch, unless it is there already."""
        if self._next is None:
            batch = next(self._iterator)
            image, label = put_batch((batch.image, batch.label), self._mesh)
            self._next = Fed(image, label, batch.index, self._iterator.get_state())

    def take(self) -> Fed:
        """The next batch."""
        fed, self._next = self.peek(), None
        return fed
