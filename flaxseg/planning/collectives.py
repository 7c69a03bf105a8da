"""Collectives of a compiled program, read from its HLO text."""

import math
import re
from typing import NamedTuple

from flaxseg.planning.hlo import executions, lines

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_INSTRUCTION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\((.*)")
_TENSOR = re.compile(r"([a-z]+\d+)\[([\d,]*)\]")
_CHAIN = re.compile(r'chain_id="(\d+)"')

# How XLA for TPUs writes a reduce-scatter: a fusion of an all-reduce with slices of its result.
_SCATTERING = "all-reduce-scatter"

Shape = tuple[int, ...]


class Collective(NamedTuple):
    """One tensor in one collective instruction.

    Attributes:
        kind: of `KINDS`.
        shape: of the result.
        elements: of the whole tensor: of a reduce-scatter, of its operand.
        itemsize: bytes of an element.
        group: number of devices that take part.
        times: how often a run of the program executes the instruction.
        backward: it belongs to the gradient.
    """

    kind: str
    shape: Shape
    elements: int
    itemsize: int
    group: int
    times: int
    backward: bool

    @property
    def bytes(self) -> int:
        """Of the whole tensor."""
        return self.elements * self.itemsize

    @property
    def sent(self) -> float:
        """Bytes that each device sends in one execution, in a ring of the group."""
        return self.bytes * sent_share(self.kind, self.group)


def sent_share(kind: str, group: int) -> float:
    """What a device sends of a tensor in a ring, as a share of it; no algorithm needs less."""
    if kind == "collective-permute":
        return 1.0
    return (2 if kind == "all-reduce" else 1) * (group - 1) / group


def collectives(text: str) -> list[Collective]:
    """Every tensor in the collectives of a compiled program, from its HLO text.

    The start and the end of an asynchronous one count once, as do the parts that XLA for TPUs
    lays among the computations that it overlaps with.
    """
    times = executions(text)
    found, chains = [], set()
    for computation, line in lines(text):
        match = _INSTRUCTION.search(line)
        if not match or not times[computation]:
            continue
        results, kind, start, rest = match.groups()
        chain = _CHAIN.search(rest)
        if chain and chain[1] in chains:
            continue
        chains |= {chain[1]} if chain else set()
        group = _group_size(rest)
        for dtype, dims in _results(_TENSOR.findall(results), kind, bool(start)):
            shape = tuple(int(n) for n in dims.split(",") if n)
            whole = group if kind in ("reduce-scatter", "all-to-all") else 1
            itemsize = int(re.sub(r"\D", "", dtype)) // 8
            scatters = kind == "all-reduce" and computation.startswith(_SCATTERING)
            found.append(
                Collective(
                    "reduce-scatter" if scatters else kind,
                    shape,
                    math.prod(shape) * whole,
                    itemsize,
                    group,
                    times[computation],
                    "transpose(" in rest,
                )
            )
    return found


def _results(tensors: list[tuple[str, str]], kind: str, start: bool) -> list[tuple[str, str]]:
    """Those of the tensors in front of an instruction's name that are its results."""
    if kind == "collective-permute":
        return tensors[1:2] if start else tensors[:1]
    if kind == "all-to-all":
        return tensors[:1]  # a tuple of equal parts; the result is all of them
    if kind == "all-gather" and start:
        return tensors[len(tensors) // 2 :]  # the operands stand before them
    return tensors


def _group_size(rest: str) -> int:
    """Devices in each group, in any of the notations of HLO."""
    mesh = re.search(r"replica_groups=mesh\[(.*?)\].*?\{(.*?)\}", rest)
    if mesh:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh.group(1)))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh.group(2)))
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest)
    if iota:
        return int(iota.group(1))
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    return len(listed.group(1).split(",")) if listed else 1
