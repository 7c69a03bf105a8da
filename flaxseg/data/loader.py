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
    source: Source, transform: Transform, *, batch_size: int, num_threads: int | None = None
) -> "EvalLoader":
    """Batches for evaluation: every example once, images and label maps of one size per batch.

    Args:
        source: the examples.
        transform: usually an `EvalTransform`.
        batch_size: examples per batch. A batch that does not fill is padded with black images of
            label 255, weight 0 and index 0, so that each image size has one batch shape.
        num_threads: examples read at a time; None: one for each core, at most 16.

    Raises:
        ConfigError: batch size below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"--batch-size {batch_size}: give at least 1")
    return EvalLoader(source, transform, batch_size, num_threads)


class EvalLoader:
    """Iterates over a source once per `iter`; see `eval_loader`."""

    def __init__(
        self,
        source: Source,
        transform: Transform,
        batch_size: int,
        num_threads: int | None = None,
    ):
        """Keeps the arguments of `eval_loader`."""
        self.source = source
        self.batch_size = batch_size
        self._transform = transform
        self._num_threads = num_threads

    def __iter__(self) -> Iterator[Batch]:
        waiting: dict[Any, list[tuple[int, Example]]] = collections.defaultdict(list)
        for index, example in self._examples():
            size = example.image.shape, example.label.shape
            waiting[size].append((index, example))
            if len(waiting[size]) == self.batch_size:
                yield self._batch(waiting.pop(size))
            elif sum(map(len, waiting.values())) > _BATCHES_AHEAD * self.batch_size:
                # Photos of ever new sizes must not pile up in memory.
                fullest = max(waiting, key=lambda size: len(waiting[size]))
                yield self._batch(waiting.pop(fullest))
        for examples in waiting.values():
            yield self._batch(examples)

    def _examples(self) -> Iterator[tuple[int, Example]]:
        def load(index: int) -> tuple[int, Example]:
            return index, self._transform(self.source[index], np.random.default_rng(index))

        order = grain.MapDataset.range(len(self.source)).map(load)
        options = _read_options(self._num_threads, _BATCHES_AHEAD * self.batch_size)
        return iter(order.to_iter_dataset(options))

    def _batch(self, examples: list[tuple[int, Example]]) -> Batch:
        batch = _stack([example for _, example in examples], [index for index, _ in examples])
        return batch if len(examples) == self.batch_size else pad_batch(batch, self.batch_size)


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
