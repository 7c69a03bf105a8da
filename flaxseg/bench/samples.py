"""How long calls take, in turns, without those that other programs of the machine disturbed.

The least of some samples is what the program itself takes; the median and the quartiles tell what
the machine adds.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Self

try:
    import resource
except ModuleNotFoundError:  # Windows counts no switches
    resource = None

ENOUGH = 5
"""Undisturbed samples that may stand for all."""


class Timed(NamedTuple):
    """One call.

    Attributes:
        seconds: that it took.
        switches: how often a thread of the process was made to wait for another process.
    """

    seconds: float
    switches: int


@dataclasses.dataclass(frozen=True)
class Samples:
    """What the calls of a program took.

    Attributes:
        seconds: of the calls that count, in their order.
        taken: number of all that were timed.
    """

    seconds: tuple[float, ...]
    taken: int

    @classmethod
    def of(cls, timed: Iterable[Timed]) -> Self:
        """Those without switches where they are `ENOUGH`, or else all."""
        timed = list(timed)
        quiet = [one for one in timed if not one.switches]
        kept = quiet if len(quiet) >= ENOUGH else timed
        return cls(tuple(one.seconds for one in kept), len(timed))

    @property
    def min(self) -> float:
        """The least seconds."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Seconds below which a quarter and three quarters of the samples lie."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            "min": self.min,
            "median": self.median,
            "quartiles": list(self.quartiles),
            "kept": len(self.seconds),
            "taken": self.taken,
            "seconds": list(self.seconds),
        }


def take_turns(
    calls: Mapping[str, Callable[[], Any]], rounds: int, pause: float = 0.0
) -> dict[str, Samples]:
    """Times programs one after the other, again and again: what drifts, drifts for all of them.

    Args:
        calls: each makes one call and waits until its result is there. Nothing compiles any more.
        rounds: timed calls of each; one that is not timed goes before.
        pause: seconds before each call, until threads that still spin for more work have stopped.
    """
    for call in calls.values():
        call()
    timed: dict[str, list[Timed]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(pause)
            timed[name].append(_timed(call))
    return {name: Samples.of(those) for name, those in timed.items()}


def _timed(call: Callable[[], Any]) -> Timed:
    switches, begin = _switches(), time.perf_counter()
    call()
    return Timed(time.perf_counter() - begin, _switches() - switches)


def _switches() -> int:
    """Involuntary context switches of all threads so far; 0 where the system does not count."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
