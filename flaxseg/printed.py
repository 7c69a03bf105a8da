"""Text on a console as it is: what looks like markup, an emoji code or a number is left alone.

And amounts in words.
"""

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track
from rich.text import Text

T = TypeVar("T")


def print_line(console: Console, line: str) -> None:
    """Prints a line, which is not wrapped in a log file."""
    console.print(Text(line), soft_wrap=True)


def tracked(
    items: Iterable[T], text: str, console: Console | None, total: int | None = None
) -> Iterable[T]:
    """The items, with a progress bar that goes when they are through."""
    if console is None:
        return items
    return track(items, text, total=total, console=console, transient=True)


def table_title(title: str) -> Text:
    """The title of a table."""
    return Text(title, style="table.title")


def in_bytes(count: float) -> str:
    """Bytes in a unit of 1024s that leaves up to four digits before the point."""
    for unit in ("B", "KiB", "MiB"):
        if count < 9999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def in_milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, three digits or all before the point."""
    value = seconds * 1e3
    return f"{value:.0f} ms" if value >= 1000 else f"{value:.3g} ms"
