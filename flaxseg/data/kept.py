"""Keeps decoded examples in memory, so that later epochs need not read them again."""

import threading

from flaxseg.data.source import Example, Source


class KeptExamples:
    """A source whose examples stay in memory once they were read, as far as there is room.

    Decoding is most of a loader's work: from the second epoch on, pictures that are kept only cost
    their augmentation. They are read-only.
    """

    def __init__(self, source: Source, num_bytes: float):
        """Keeps examples of `source` up to `num_bytes` of pixels and labels; reads none yet."""
        self.labels = source.labels
        self._source = source
        self._free = num_bytes
        self._kept: dict[int, Example] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        example = self._kept.get(index)
        return self._keep(index, self._source[index]) if example is None else example

    def name(self, index: int) -> str:
        """The example's own name."""
        return self._source.name(index)

    def _keep(self, index: int, example: Example) -> Example:
        size = example.image.nbytes + example.label.nbytes
        with self._lock:
            if index not in self._kept and size <= self._free:
                self._free -= size
                for array in example:
                    array.flags.writeable = False
                self._kept[index] = example
        return example
