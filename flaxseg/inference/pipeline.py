"""Reads ahead of the device and writes behind it, in batches, with little in memory."""

import collections
import itertools
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

from flaxseg.errors import DataError

Item = TypeVar("Item")
Content = TypeVar("Content")
Started = TypeVar("Started")
Result = TypeVar("Result")

ALIVE = 4
"""Items that may be in work whatever they weigh."""

_READERS = _WRITERS = 2
_BATCHES_ON_DEVICE = 2
_LATER_BATCHES = 6
"""So many batches of light items may be read, or wait for their fellows."""


class Batching(NamedTuple):
    """Which items go to the device together; by default each goes alone.

    Attributes:
        of: from a content to what all of a batch share, and how many make a full one.
        weight: of a content.
        most: weight of all that is in work, as soon as that is more than `ALIVE` items.
    """

    of: Callable[[Any], tuple[Hashable, int]] = lambda content: (None, 1)
    weight: Callable[[Any], int] = lambda content: 1
    most: int = 0


ALONE = Batching()
"""Each item is a batch."""


def pipeline(
    items: Iterable[Item],
    read: Callable[[Item], Content],
    start: Callable[[Sequence[tuple[Item, Content]]], Sequence[Started]],
    write: Callable[[Started], Result],
    batching: Batching = ALONE,
    alive: int = ALIVE,
) -> Generator[tuple[Item, Result | DataError]]:
    """Takes items through three steps: the first and the last in threads, the second in this one.

    Items wait until their batch is full, unless nothing more can be read: a batch that is not full
    starts at the end, or when what is in work weighs too much. To be closed, so that it ends when
    the caller does: what is being read and written then is waited for, and nothing else is begun.

    Args:
        items: what there is to do; only as many are drawn as are in work.
        read: from an item to its content, such as the pixels of a photo.
        start: gives the contents of a batch to the device and does not wait for it.
        write: waits for the device and writes what it found.
        batching: which items make a batch, and how much may be in work.
        alive: most items in work whatever they weigh, at least 1.

    Yields:
        Each item with what `write` returned, or with the `DataError` that `read` or `start` raised;
        in order where each is a batch, but for these. All other errors, and those of `write`, are
        raised.
    """
    readers, writers = ThreadPoolExecutor(_READERS), ThreadPoolExecutor(_WRITERS)
    line = _Line(iter(items), batching, alive)
    try:
        while True:
            line.draw(lambda item: readers.submit(read, item))
            key = line.next_batch()
            if key is not None and line.on_device < _BATCHES_ON_DEVICE:
                # Functions of their own, as variables of this loop would keep contents for longer.
                yield from line.begin(key, start, lambda started: writers.submit(write, started))
            elif key is None and line.reading:
                yield from line.take()
            elif line.writing:
                yield line.finish()
            else:
                return
    finally:
        for pool in (readers, writers):
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in (readers, writers):
            pool.shutdown()


class _Line(Generic[Item, Content, Started, Result]):
    """The items in work: being read, waiting for their batch, on the device and being written."""

    def __init__(self, items: Iterator[Item], batching: Batching, alive: int):
        self.reading: collections.deque[tuple[Item, Future[Content]]] = collections.deque()
        self.writing: collections.deque[tuple[Item, Future[Result], int, int]] = collections.deque()
        self._waiting: dict[tuple[Hashable, int], list[tuple[Item, Content]]] = {}
        self._items, self._batching, self._alive = items, batching, alive
        self._ended = False
        self._weight = self._last_weight = 0
        self._batches = itertools.count()
        self._largest = 1

    @property
    def on_device(self) -> int:
        """Batches that have started and are not written."""
        return len({batch for *_, batch in self.writing})

    def draw(self, begin: Callable[[Item], Future[Content]]) -> None:
        """Begins to read as much as may be in work."""
        while not self._ended and self._has_room():
            for item in itertools.islice(self._items, 1):
                self.reading.append((item, begin(item)))
                break
            else:
                self._ended = True

    def _has_room(self) -> bool:
        waiting = sum(map(len, self._waiting.values()))
        count = len(self.reading) + waiting + len(self.writing)
        # What is being read is guessed to weigh as much as the last one.
        weight = self._weight + (1 + len(self.reading)) * self._last_weight
        light = 0 < weight <= self._batching.most and count < _LATER_BATCHES * self._largest
        return count < self._alive or light

    def take(self) -> Iterator[tuple[Item, DataError]]:
        """Waits for what is read next; yields it if it cannot be used."""
        item, content = self.reading.popleft()
        try:
            found = content.result()
        except DataError as error:
            yield item, error
            return
        key = self._batching.of(found)
        self._largest = max(self._largest, key[1])
        self._last_weight = self._batching.weight(found)
        self._weight += self._last_weight
        self._waiting.setdefault(key, []).append((item, found))

    def next_batch(self) -> tuple[Hashable, int] | None:
        """What the next batch shares: the first full one, or the largest if nothing can be read."""
        full = (key for key, waiting in self._waiting.items() if len(waiting) >= key[1])
        key = next(full, None)
        if key is None and not self.reading and (self._ended or not self.writing):
            return max(self._waiting, key=lambda key: len(self._waiting[key]), default=None)
        return key

    def begin(
        self,
        key: tuple[Hashable, int],
        start: Callable[[Sequence[tuple[Item, Content]]], Sequence[Started]],
        finish: Callable[[Started], Future[Result]],
    ) -> Iterator[tuple[Item, DataError]]:
        """Starts a batch; yields its items if they cannot be used."""
        batch, number = self._waiting.pop(key), next(self._batches)
        weights = [self._batching.weight(content) for _, content in batch]
        try:
            started = start(batch)
        except DataError as error:
            self._weight -= sum(weights)
            yield from ((item, error) for item, _ in batch)
            return
        for (item, _), each, weight in zip(batch, started, weights, strict=True):
            self.writing.append((item, finish(each), weight, number))

    def finish(self) -> tuple[Item, Result]:
        """Waits for what is written next."""
        item, done, weight, _ = self.writing.popleft()
        self._weight -= weight
        return item, done.result()
