"""Reads ahead of the device and writes behind it, with few items in memory."""

import collections
import itertools
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from flaxseg.errors import DataError

Item = TypeVar("Item")
Content = TypeVar("Content")
Started = TypeVar("Started")
Result = TypeVar("Result")

ALIVE = 4
"""Items that are anywhere between the start of their reading and the end of their writing."""

_READERS = _WRITERS = 2


def pipeline(
    items: Iterable[Item],
    read: Callable[[Item], Content],
    start: Callable[[Item, Content], Started],
    write: Callable[[Started], Result],
    alive: int = ALIVE,
) -> Generator[tuple[Item, Result | DataError]]:
    """Takes items through three steps: the first and the last in threads, the second in this one.

    To be closed, so that it ends when the caller does: what is being read and written then is
    waited for, and nothing else is begun.

    Args:
        items: what there is to do; only as many are drawn as are alive.
        read: from an item to its content, such as the pixels of a photo.
        start: gives the content to the device and does not wait for it.
        write: waits for the device and writes what it found.
        alive: most items in work, at least 1.

    Yields:
        Each item with what `write` returned, in order, or earlier with the `DataError` that `read`
        or `start` raised. All other errors, and those of `write`, are raised.
    """
    items = iter(items)
    readers, writers = ThreadPoolExecutor(_READERS), ThreadPoolExecutor(_WRITERS)
    reading: collections.deque[tuple[Item, Future[Content]]] = collections.deque()
    writing: collections.deque[tuple[Item, Future[Result]]] = collections.deque()

    def begun(item: Item, content: Future[Content]) -> Future[Result]:
        # A function of its own, as variables of the loop would keep a content for longer.
        return writers.submit(write, start(item, content.result()))

    try:
        while True:
            for item in itertools.islice(items, alive - len(reading) - len(writing)):
                reading.append((item, readers.submit(read, item)))
            if reading and len(writing) < _WRITERS:
                item = reading[0][0]
                try:
                    writing.append((item, begun(*reading.popleft())))
                except DataError as error:
                    yield item, error
            elif writing:
                item, done = writing.popleft()
                yield item, done.result()
            else:
                return
    finally:
        for pool in (readers, writers):
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in (readers, writers):
            pool.shutdown()
