"""What the parts of the examination give."""

from typing import NamedTuple


class Finding(NamedTuple):
    """Something that is wrong.

    Attributes:
        what: in a line.
        mend: what to type, or to do, against it.
    """

    what: str
    mend: str


class Section(NamedTuple):
    """A part of the report.

    Attributes:
        title: heading.
        lines: what there is.
        findings: what of it is wrong.
    """

    title: str
    lines: list[str]
    findings: list[Finding]


def first_line(error: BaseException) -> str:
    """An error in one line, with its type where it has no words."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
