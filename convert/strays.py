"""Tensors of a file that belong to no layer: what they are, and why nothing is lost without them.

A loss keeps its class weights beside the network, a profiler its counts in every module. Whatever
might be a layer of another network than the one recognised is no stray, and stays an error.
"""

from collections.abc import Mapping

import numpy as np

from convert.changes import Shape
from convert.rules import Table
from flaxseg.model_dir import Tensor

COUNTS = "counts something, no layer computes with it"
BESIDE = "stands beside the network and is no layer: a loss, a metric or a constant of its training"

PROFILED = ("total_ops", "total_params")
"""What thop leaves in every module that it has counted."""

STATISTICS = {"running_mean", "running_var"}


def layer_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Key -> shape of all tensors but counters, whose number says nothing about a network."""
    return {key: tuple(t.shape) for key, t in tensors.items() if not is_counter(key, t)}


def is_counter(key: str, tensor: Tensor) -> bool:
    """Whether it is a single whole number, or one of thop's."""
    single = not any(length != 1 for length in tensor.shape)
    return single and (np.dtype(tensor.dtype).kind in "iu" or key.split(".")[-1] in PROFILED)


def find_strays(tensors: Mapping[str, Tensor], table: Table) -> dict[str, str]:
    """Key -> reason of every tensor that the network does not have and can be without.

    None where a tensor of the network is missing: what looks like a stray may be that one.

    Args:
        tensors: of the file, by the format's keys.
        table: of the network in that format.
    """
    needed = table.foreign_shapes.keys() - table.spares.keys()
    if needed - tensors.keys():
        return {}
    unknown = {k: t for k, t in tensors.items() if k not in needed and k not in table.spares}
    strays = {key: COUNTS for key, tensor in unknown.items() if is_counter(key, tensor)}
    tree = {_first(key) for key in table.order}
    groups: dict[str, list[str]] = {}
    for key in unknown.keys() - strays.keys():
        groups.setdefault(_first(key), []).append(key)
    for part, keys in groups.items():
        if part not in tree and not _holds_a_layer({key: unknown[key] for key in keys}):
            strays |= dict.fromkeys(keys, BESIDE)
    return {key: strays[key] for key in unknown if key in strays}


def _first(key: str) -> str:
    return key.partition(".")[0]


def _holds_a_layer(tensors: Mapping[str, Tensor]) -> bool:
    """Whether some of them look like a convolution, a linear layer or a norm."""
    # Whole numbers are counts, such as a metric's confusion matrix.
    tensors = {k: t for k, t in tensors.items() if np.dtype(t.dtype).kind not in "biu"}
    if any(sum(length > 1 for length in tensor.shape) > 1 for tensor in tensors.values()):
        return True
    leaves: dict[str, set[str]] = {}
    for key in tensors:
        module, _, leaf = key.rpartition(".")
        leaves.setdefault(module, set()).add(leaf)
    return any({"weight", "bias"} <= names or names & STATISTICS for names in leaves.values())
