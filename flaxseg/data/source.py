"""What a data set is: examples by index, with the names of their files and classes."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from flaxseg.labels import LabelSet


class Example(NamedTuple):
    """One image and its label map.

    Attributes:
        image: RGB picture, (H, W, 3) uint8.
        label: class id of every pixel, (H, W) uint8, 255 where nothing counts.
    """

    image: np.ndarray
    label: np.ndarray


class Batch(NamedTuple):
    """Examples of one size.

    Attributes:
        image: RGB pictures, (B, H, W, 3) uint8.
        label: class ids, (B, H, W) uint8, 255 where nothing counts.
        weight: 1 for an example and 0 for padding, (B,) float32.
        index: position of each example in its source, (B,) int32.
    """

    image: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    index: np.ndarray


@runtime_checkable
class Source(Protocol):
    """Examples in a fixed order; reading one has no side effect, so threads may share a source."""

    labels: LabelSet

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def __getitem__(self, index: int, /) -> Example:
        """The example at a position, 0 to len - 1."""
        ...

    def name(self, index: int, /) -> str:
        """What messages call an example: its image file below the data folder, if it has one."""
        ...
