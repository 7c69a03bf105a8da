"""Turns SIGTERM and Ctrl-C into a request that the training loop answers between two steps."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

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

    def check(self) -> None:
        """Raises `Stopped` after a signal."""
        if self.name:
            raise Stopped

    def guard(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, until a signal raises `Stopped`."""
        for item in items:
            self.check()
            yield item
        self.check()
