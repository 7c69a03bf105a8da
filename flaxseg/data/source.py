"""What a data set is: examples by index, with the names of their files and classes."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from flaxseg.labels import IGNORE, LabelSet


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


def pad_batch(batch: Batch, size: int) -> Batch:
    """The batch with uncounted black samples of index 0 at its end, `size` in all."""
    missing = size - len(batch.image)

    def pad(values: np.ndarray, fill: int) -> np.ndarray:
        return np.concatenate((values, np.full((missing, *values.shape[1:]), fill, values.dtype)))

    return Batch(
        pad(batch.image, 0), pad(batch.label, IGNORE), pad(batch.weight, 0), pad(batch.index, 0)
    )


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


class FirstExamples:
    """The first examples of a source."""

    def __init__(self, source: Source, count: int):
        """Shortens `source` to at most `count` examples."""
        self.labels = source.labels
        self._source, self._count = source, min(count, len(source))
        self.skipped = getattr(source, "skipped", ())
        self.lines = getattr(source, "lines", ())

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:
        return self._source[index]

    def name(self, index: int) -> str:
        """The example's own name."""
        return self._source.name(index)

    @property
    def statistics(self) -> Any:
        """What the label maps hold, if the source knows without reading them; or else None."""
        known = getattr(self._source, "statistics", None)
        return None if known is None else known.first(self._count)
