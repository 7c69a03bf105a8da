"""Batches from a source, with Grain: shuffled without end for training, in order for evaluation."""

import collections
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from flaxseg.data.source import Batch, Example, Source, pad_batch
from flaxseg.data.transforms import Transform
from flaxseg.errors import ConfigError, DataError

_BATCHES_AHEAD = 4
_MAX_THREADS = 16
_MAX_SEED = 2**32 - 1


def steps_per_epoch(source: Source, batch_size: int) -> int:
    """Number of whole batches in one pass over a source.

    Raises:
        DataError: the source is smaller than a batch.
        ConfigError: batch size below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"--batch-size {batch_size}: give at least 1")
    if len(source) < batch_size:
        raise DataError(
            f"the training set has {len(source)} images ({source.name(0)}, ...), fewer than "
            f"--batch-size {batch_size}: give --batch-size {len(source)} or less"
        )
    return len(source) // batch_size


def train_loader(
    source: Source,
    transform: Transform,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int | None = None,
) -> grain.IterDataset[Batch]:
    """Batches for training, without end.

    Every epoch is a new permutation of the source; the examples beyond the last whole batch sit
    out. Order and augmentation are a function of the seed and the step alone: the number of
    processes and threads does not change them.

    Iterators have `get_state` and `set_state`. The state is a small dict of JSON values that counts
    the batches taken, the same in every process and for any number of processes; an iterator that
    is set to it goes on with exactly the batch that came next.

    Args:
        source: the examples.
        transform: augmentation to one image size.
        batch_size: examples of all processes together.
        seed: of order and augmentation, 0 to 2**32 - 1.
        process_index: this process; it gets its contiguous part of each batch.
        process_count: number of processes.
        num_threads: batches prepared at a time; None: one for each core, at most 16.

    Returns:
        The batches of this process, `batch_size // process_count` examples each, of weight 1.

    Raises:
        DataError: the source is smaller than a batch.
        ConfigError: batch size not divisible by the number of processes, or seed out of range.
    """
    steps = steps_per_epoch(source, batch_size)
    if batch_size % process_count:
        raise ConfigError(
            f"--batch-size {batch_size} is not divisible by the {process_count} processes"
        )
    if not 0 <= seed <= _MAX_SEED:
        raise ConfigError(f"--seed {seed}: give a value from 0 to {_MAX_SEED}")
    local = batch_size // process_count
    reader = _Reader(source, transform, seed, process_index * local, local)
    order = grain.MapDataset.range(len(source)).seed(seed).shuffle()[: steps * batch_size]
    batches = order.repeat().batch(batch_size, drop_remainder=True).map_with_index(reader)
    return batches.to_iter_dataset(_read_options(num_threads))


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads one process's part of the batch at a step: `count` examples from place `first` on."""

    source: Source
    transform: Transform
    seed: int
    first: int
    count: int

    def __call__(self, step: int, indices: np.ndarray) -> Batch:
        places = range(self.first, self.first + self.count)
        return _stack(
            [self._example(int(indices[place]), step * len(indices) + place) for place in places],
            [int(indices[place]) for place in places],
        )

    def _example(self, index: int, position: int) -> Example:
        """Augments an example as its position in the whole run's order demands."""
        return self.transform(self.source[index], np.random.default_rng((self.seed, position)))


def eval_loader(
    source: Source,
    transform: Transform,
    *,
    batch_size: int,
    num_threads: int | None = None,
    few_programs: bool = False,
) -> "EvalLoader":
    """Batches for evaluation: every example once, images and label maps of one size per batch.

    Args:
        source: the examples.
        transform: usually an `EvalTransform`.
        batch_size: most examples per batch. Each size of images has one batch shape, for which a
            program is compiled: the power of two that holds the first batch of this size. Later
            ones are cut to it, and what does not fill it is padded with black images of label 255,
            weight 0 and index 0.
        num_threads: examples read at a time; None: one for each core, at most 16.
        few_programs: images of all sizes share programs, on canvases or through windows, so that
            batch shapes must be few: one example alone, or a whole batch.

    Raises:
        ConfigError: batch size below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"--batch-size {batch_size}: give at least 1")
    return EvalLoader(source, transform, batch_size, num_threads, few_programs)


class EvalLoader:
    """Iterates over a source once per `iter`; see `eval_loader`."""

    def __init__(
        self,
        source: Source,
        transform: Transform,
        batch_size: int,
        num_threads: int | None = None,
        few_programs: bool = False,
    ):
        """Keeps the arguments of `eval_loader`."""
        self.source = source
        self.batch_size = batch_size
        self._transform = transform
        self._num_threads = num_threads
        self._few_programs = few_programs

    def __iter__(self) -> Iterator[Batch]:
        waiting: dict[Any, list[tuple[int, Example]]] = collections.defaultdict(list)
        shapes: dict[tuple[int, ...], int] = {}

        def batches(size: Any) -> Iterator[Batch]:
            examples = waiting.pop(size)
            shape = shapes.setdefault(size[0], self._shape(len(examples)))
            for first in range(0, len(examples), shape):
                yield _filled(examples[first : first + shape], shape)

        for index, example in self._examples():
            size = example.image.shape, example.label.shape
            waiting[size].append((index, example))
            if len(waiting[size]) == self.batch_size:
                yield from batches(size)
            elif sum(map(len, waiting.values())) > _BATCHES_AHEAD * self.batch_size:
                # Photos of ever new sizes must not pile up in memory.
                fullest = max(waiting, key=lambda size: len(waiting[size]))
                yield from batches(fullest)
        for size in list(waiting):
            yield from batches(size)

    def _shape(self, count: int) -> int:
        """Examples per batch of a size whose first batch has so many."""
        if self._few_programs:
            return 1 if count == 1 else self.batch_size
        return min(1 << (count - 1).bit_length(), self.batch_size)

    def _examples(self) -> Iterator[tuple[int, Example]]:
        def load(index: int) -> tuple[int, Example]:
            return index, self._transform(self.source[index], np.random.default_rng(index))

        order = grain.MapDataset.range(len(self.source)).map(load)
        options = _read_options(self._num_threads, _BATCHES_AHEAD * self.batch_size)
        return iter(order.to_iter_dataset(options))


def _filled(examples: list[tuple[int, Example]], shape: int) -> Batch:
    batch = _stack([example for _, example in examples], [index for index, _ in examples])
    return batch if len(examples) == shape else pad_batch(batch, shape)


def _read_options(num_threads: int | None, ahead: int = _BATCHES_AHEAD) -> grain.ReadOptions:
    """Threads, and how many items they prepare before these are asked for: at least one each."""
    threads = num_threads or min(_MAX_THREADS, os.cpu_count() or 1)
    return grain.ReadOptions(threads, max(ahead, threads))


def _stack(examples: list[Example], indices: list[int]) -> Batch:
    return Batch(
        np.stack([example.image for example in examples]),
        np.stack([example.label for example in examples]),
        np.ones(len(examples), np.float32),
        np.array(indices, np.int32),
    )
