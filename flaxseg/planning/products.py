"""Matrix products and convolutions of a compiled program, read from its HLO text."""

import collections
import dataclasses
import re

from flaxseg.planning.hlo import executions, lines

_RESULT = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = ([a-z]+\d+)\[")
_PRODUCT = re.compile(r" (convolution|dot)\(%?([\w.\-]+), %?([\w.\-]+)\)(.*)")
_WINDOW = re.compile(r"window=\{size=(\d+)x(\d+)[ }]")
_LABELS = re.compile(r"dim_labels=\w+_(\w+)->")
_NAMES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32", "f64": "float64"}

PRODUCT, CONVOLUTION, WEIGHTS = "product", "convolution", "gradient of a convolution's weights"


@dataclasses.dataclass(frozen=True)
class Products:
    """All products of one kind in a program.

    Attributes:
        kind: `PRODUCT` (of matrices), `CONVOLUTION` or `WEIGHTS`.
        operands: number format of the wider operand, such as "bfloat16".
        exact: float32 is multiplied as such; the program asks for it.
        count: how many a run of the program executes.
        window: the largest height and width over which a convolution adds up, in pixels. That of a
            gradient of weights is the map: XLA writes it as the convolution of the layer's input
            with the gradient of its output.
    """

    kind: str
    operands: str
    exact: bool
    count: int
    window: tuple[int, int] | None


def products(text: str) -> tuple[Products, ...]:
    """What a compiled program multiplies.

    XLA for TPUs writes products of matrices as convolutions, too; they keep the name of JAX's
    operation, which tells them apart.
    """
    times, formats = executions(text), _formats(text)
    counts: collections.Counter[tuple[str, str, bool]] = collections.Counter()
    windows: dict[tuple[str, str, bool], tuple[int, int]] = {}
    for computation, line in lines(text):
        match = _PRODUCT.search(line)
        if not match or not times[computation]:
            continue
        opcode, *operands, rest = match.groups()
        wider = max((formats.get((computation, name), "") for name in operands), key=_bits)
        key = _kind(opcode, rest), _NAMES.get(wider, wider), "{highest,highest}" in rest
        counts[key] += times[computation]
        window = _WINDOW.search(rest)
        if window and key[0] != PRODUCT:
            size = int(window[1]), int(window[2])
            windows[key] = max(windows.get(key, size), size)
    return tuple(Products(*key, counts[key], windows.get(key)) for key in sorted(counts))


def _formats(text: str) -> dict[tuple[str, str], str]:
    """The number format of each result, by its computation and name."""
    found = {}
    for computation, line in lines(text):
        match = _RESULT.match(line)
        if match:
            found[computation, match[1]] = match[2]
    return found


def _bits(name: str) -> int:
    return int(re.sub(r"\D", "", name) or 0)


def _kind(opcode: str, rest: str) -> str:
    if opcode == "dot" or "conv_general_dilated" not in rest:
        return PRODUCT
    # The batch is what it adds up over, in the place of a kernel's input channels: first.
    labels = _LABELS.search(rest)
    return WEIGHTS if labels and labels[1].startswith("i") else CONVOLUTION
