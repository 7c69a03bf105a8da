"""Text on a console as it is: what looks like markup, an emoji code or a number is left alone."""

from rich.console import Console
from rich.text import Text


def print_line(console: Console, line: str) -> None:
    """Prints a line, which is not wrapped in a log file."""
    console.print(Text(line), soft_wrap=True)


def table_title(title: str) -> Text:
    """The title of a table."""
    return Text(title, style="table.title")
