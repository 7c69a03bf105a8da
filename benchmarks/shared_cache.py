"""How fast a processor reads what it has written itself, and what another one has.

    python benchmarks/shared_cache.py

Programs on several threads leave most of what they write for another processor to read. Where two
of them share a cache the second figure is nearly the first. Where they do not, as on two parts of
a large processor or on two sockets, it is a fraction, and such programs take longer; products of
large matrices do not. A virtual machine's processors may be moved from the one to the other.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

LENGTH = 100_000
"""Numbers of float32: 400 kB, which a processor's own cache holds."""

TURNS = 500
"""Readings of which the fastest counts."""


class Reading(NamedTuple):
    """Bytes per second of a copy, read and written.

    Attributes:
        own: of what the same processor wrote.
        other: of what another one wrote.
    """

    own: float
    other: float


def read_across() -> Reading | None:
    """Measures the first two processors of this process; None where they cannot be chosen."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        return None
    first, second = sorted(allowed)[:2]
    try:
        os.sched_setaffinity(0, {first})  # of this thread alone
        with ThreadPoolExecutor(1) as thread:
            thread.submit(os.sched_setaffinity, 0, {second}).result()
            own = _speed(lambda write: write())
            return Reading(own, _speed(lambda write: thread.submit(write).result()))
    finally:
        os.sched_setaffinity(0, allowed)


def _speed(let: Callable[[Callable[[], Any]], Any]) -> float:
    """Of reading in this thread what is written where `let` calls it."""
    numbers, copy = np.zeros(LENGTH, np.float32), np.zeros(LENGTH, np.float32)
    fastest = float("inf")
    for _ in range(TURNS):
        let(lambda: np.add(numbers, 1, out=numbers))
        begin = time.perf_counter()
        np.copyto(copy, numbers)
        fastest = min(fastest, time.perf_counter() - begin)
    return 2 * numbers.nbytes / fastest


if __name__ == "__main__":
    found = read_across()
    if found is None:
        print("needs two processors, and a system that lets a thread choose one")
    else:
        print(f"own {found.own / 1e9:.0f} GB/s, another's {found.other / 1e9:.0f} GB/s")
