"""What the collectives of a training step carry, and the least that they must.

In theory a step moves

- data parallel: every gradient once, in an all-reduce;
- fsdp: every split parameter once, in an all-gather (it is kept for the backward pass), and its
  gradient once, in a reduce-scatter; with a data axis too, the gradient's part in an all-reduce.
"""

import collections
import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax

from flaxseg.planning.collectives import Collective, sent_share


def what_they_carry(found: Iterable[Collective], params: Any, data: int) -> list[str]:
    """What each tensor is: "parameters", "gradients", "statistics" or "other".

    A tensor is a gradient if it has as many elements as a parameter whose gradient was not found
    yet: one that is summed twice is something else the second time. (XLA transposes and flattens
    what it sends, and sends it in the format of the computation, so shape and bytes say nothing.) A
    vector that is no gradient is a sum over the batch, of BatchNorm or of the loss.

    Args:
        found: the collectives.
        params: parameters with their shardings, abstract or not.
        data: devices with the same part of the state.
    """
    gradients: collections.Counter[int] = collections.Counter()
    gathered: collections.Counter[int] = collections.Counter()
    for size, part, _ in _sizes(params):
        gradients[size] += 1
        if part < size:
            gathered[size] += 1
            gradients[part] += data > 1

    def carried(one: Collective) -> str:
        vector = sum(n > 1 for n in one.shape) < 2
        if one.kind == "all-gather":
            expected, name = gathered, "parameters"
        elif one.kind in ("all-reduce", "reduce-scatter") and (one.backward or not vector):
            expected, name = gradients, "gradients"
        else:
            return "statistics" if vector else "other"
        expected[one.elements] -= one.times
        if expected[one.elements] >= 0:
            return name
        return "statistics" if vector else "other"

    return [carried(one) for one in found]


def theory(params: Any, data: int) -> dict[str, int]:
    """The least payload of a step in bytes: of "parameters" and of "gradients".

    Args:
        params: parameters with their shardings, abstract or not.
        data: devices with the same part of the state.
    """
    total = {"parameters": 0, "gradients": 0}
    for size, part, itemsize in _sizes(params):
        total["gradients"] += size * itemsize
        if part < size:
            total["parameters"] += size * itemsize
            total["gradients"] += part * itemsize if data > 1 else 0
    return total


def least_sent(params: Any, data: int, fsdp: int, frozen: Any = ()) -> float:
    """The least bytes that each device sends in a step, in the parameters' own format.

    Args:
        params: parameters with their shardings, abstract or not.
        data: devices with the same part of the state.
        fsdp: devices that share one copy of it.
        frozen: further parameters, which have no gradient.
    """
    total = 0.0
    for size, part, itemsize in _sizes(frozen):
        total += size * itemsize * sent_share("all-gather", fsdp) * (part < size)
    for size, part, itemsize in _sizes(params):
        if part == size:
            total += size * itemsize * sent_share("all-reduce", data * fsdp)
            continue
        for kind in ("all-gather", "reduce-scatter"):
            total += size * itemsize * sent_share(kind, fsdp)
        total += part * itemsize * sent_share("all-reduce", data)
    return total


def _sizes(params: Any) -> Iterator[tuple[int, int, int]]:
    """Elements of each parameter, those that a device holds, and bytes of an element."""
    for leaf in jax.tree.leaves(params):
        part = math.prod(leaf.sharding.shard_shape(leaf.shape))
        yield leaf.size, part, leaf.dtype.itemsize
