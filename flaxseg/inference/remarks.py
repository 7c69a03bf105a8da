"""Lines about single files among many."""

import collections
from pathlib import Path

from rich.console import Console

_SHOWN = 3


class Remarks:
    """Prints lines; where the same is to be said of many files, of the first few."""

    def __init__(self, console: Console | None):
        """Takes where to print; None is silent."""
        self._console = console
        self._counts: collections.Counter[str] = collections.Counter()

    def say(self, line: str) -> None:
        """Prints a line, if there is anything to say."""
        if self._console is not None and line:
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def say_of(self, path: Path, remark: str, kind: str | None = None) -> None:
        """Prints a remark about a file; `kind` is what it says of all files alike."""
        kind = kind or remark
        self._counts[kind] += 1
        if self._counts[kind] <= _SHOWN:
            self.say(f"{path}: {remark}")

    def finish(self) -> None:
        """Prints how many more files there were of each kind."""
        for kind, count in self._counts.items():
            if count > _SHOWN:
                self.say(f"and {count - _SHOWN} more: {kind}")
