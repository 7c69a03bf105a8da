"""The time of a step by the compiler's own count of cycles, and which code it is spent in."""

import collections
import dataclasses
import re
from pathlib import PurePath

from flaxseg.planning.hlo import executions, lines

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_NUMBERED = re.compile(r'^(\d+) (?:"(.*)"|\{(.*)\})$')
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


@dataclasses.dataclass(frozen=True)
class Part:
    """What one function of the source takes.

    Attributes:
        where: file and function, such as "ops/norm.py LayerNorm.__call__".
        backward: in the gradient.
        seconds: in one run of the program.
    """

    where: str
    backward: bool
    seconds: float


def estimate(text: str, clock: float) -> list[Part]:
    """The cycles that libtpu writes beside instructions, by the functions of the source.

    Several operations that run as one count where the last of them comes from. Waiting for other
    chips does not count. Empty where the compiler tells no cycles.

    Args:
        text: of the compiled program.
        clock: cycles a second.
    """
    times, where = executions(text), _functions(text)
    cycles: collections.Counter[tuple[str, bool]] = collections.Counter()
    for computation, line in lines(text):
        match, frame = _CYCLES.search(line), _FRAME.search(line)
        if match and times[computation]:
            place = where.get(frame[1], "elsewhere") if frame else "elsewhere"
            cycles[place, "transpose(" in line] += times[computation] * int(match[1])
    return [Part(*key, count / clock) for key, count in cycles.most_common()]


def _functions(text: str) -> dict[str, str]:
    """The file and function in which each stack frame ends, by the tables ahead of a program."""
    tables: dict[str, dict[str, str]] = {name: {} for name in _TABLES}
    table: dict[str, str] = {}
    for line in text.splitlines():
        table = tables.get(line, table)
        numbered = _NUMBERED.match(line)
        if numbered:
            table[numbered[1]] = numbered[2] or numbered[3]
        elif line.startswith("ENTRY"):
            break

    def name(frame: str) -> str:
        location = tables["FileLocations"][_number(frame, "file_location_id")]
        file = PurePath(tables["FileNames"][_number(location, "file_name_id")])
        function = tables["FunctionNames"][_number(location, "function_name_id")]
        return f"{'/'.join(file.parts[-2:])} {function.partition('.<locals>')[0]}"

    return {number: name(frame) for number, frame in tables["StackFrames"].items()}


def _number(fields: str, key: str) -> str:
    match = re.search(rf"{key}=(\d+)", fields)
    assert match is not None, f"no {key} in {fields!r}"
    return match[1]
