"""Turns SIGTERM and Ctrl-C into a request that the training loop answers between two steps.

Of several processes each may get its signal at another moment, or none: `StopSignal.join` makes all
of them answer between the same two steps.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from jax.sharding import Mesh

from flaxseg.distributed import AnyOf, is_alone, is_true_of_any

Item = TypeVar("Item")


_NOTICE = b"stopping after this step and saving; Ctrl-C again quits at once\n"


class Stopped(Exception):
    """Leaves a phase that has nothing to save, such as an evaluation, on a stop request."""


class StopSignal:
    """Context in which SIGTERM and SIGINT only set `name`; a second Ctrl-C interrupts at once.

    Outside the main thread, where Python takes no signals, it does nothing.

    Attributes:
        name: the first signal received, such as "SIGTERM"; None while there is none.
    """

    def __init__(self):
        """Waits for nothing before the context is entered."""
        self.name: str | None = None
        self._previous = {}
        self._anywhere: AnyOf | None = None

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame) -> None:
        if self.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.name:
            self.name = signal.Signals(number).name
            # print may be in the middle of a line that this handler interrupts.
            os.write(2, _NOTICE)

    def join(self, mesh: Mesh) -> None:
        """From here on a signal to one process is one to all, and all check equally often."""
        if not is_alone():
            self._anywhere = AnyOf(mesh)

    def requested(self) -> bool:
        """Whether any process has had a signal by now."""
        return self._agreed(is_true_of_any)

    def check(self) -> None:
        """Raises `Stopped` after a signal; with several processes at the check after it."""
        if self._agreed(self._anywhere or bool):
            raise Stopped

    def _agreed(self, anywhere: Callable[[bool], bool]) -> bool:
        stop = anywhere(bool(self.name))
        if stop and not self.name:
            self.name = "a signal to another process"
        return stop

    def guard(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, until a signal raises `Stopped`."""
        for item in items:
            self.check()
            yield item
        self.check()
