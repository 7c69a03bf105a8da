"""Reads the HLO text of a compiled program."""

import collections
import re
from collections.abc import Iterator

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(
    r"(?:body|condition|calls|to_apply|branch_computations)=(%?[\w.\-]+|\{[^}]*\})"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONDITION = re.compile(r" while\(.*?condition=%?([\w.\-]+)")
_BOUND = re.compile(r"= [su]32\[\]\S* constant\((\d+)\)")
_ENDS = re.compile(r" async-(?:update|done)\(")


def lines(text: str) -> Iterator[tuple[str, str]]:
    """Each line with the name of its computation."""
    computation = ""
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        computation = header.group(1) if header else computation
        yield computation, line


def executions(text: str) -> dict[str, int]:
    """How often a run of the program executes each computation."""
    callers: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
    bounds = _bounds(text)
    entry = ""
    for computation, line in lines(text):
        if line.startswith("ENTRY"):
            entry = computation
        if _ENDS.search(line):
            continue
        trips = _trips(line, bounds)
        for names in _CALLED.findall(line):
            for name in re.findall(r"[\w.\-]+", names):
                callers[name].append((computation, trips))
    times = collections.defaultdict(int, {entry: 1})

    def count(name: str) -> int:
        if name not in times:
            times[name] = sum(count(caller) * trips for caller, trips in callers[name])
        return times[name]

    for name in list(callers):
        count(name)
    return times


def _trips(line: str, bounds: dict[str, list[int]]) -> int:
    """How often an instruction executes what it calls; 1 where that is not known.

    XLA for TPUs leaves the count out. The loops of JAX count from 0, in steps of 1, to the only
    constant of their condition.
    """
    known = _TRIPS.search(line)
    if known:
        return int(known[1])
    condition = _CONDITION.search(line)
    bound = bounds[condition[1]] if condition else []
    return bound[0] if len(bound) == 1 else 1


def _bounds(text: str) -> dict[str, list[int]]:
    """The whole numbers in each computation."""
    bounds = collections.defaultdict(list)
    for computation, line in lines(text):
        constant = _BOUND.search(line)
        if constant:
            bounds[computation].append(int(constant[1]))
    return bounds
