"""Lists what devices send each other in a compiled training step, and compares it with theory.

    python benchmarks/collectives.py NAME [--devices 8] [--fsdp 8] [--override K=V ...] [--all]

The step is compiled for simulated CPU devices and not run: no weights are made. Payload is the size
of the whole tensor that a collective sums or puts together, on each device. In theory a step moves

- data parallel: every gradient once, in an all-reduce;
- fsdp: every split parameter once, in an all-gather (it is kept for the backward pass), and its
  gradient once, in a reduce-scatter; with a data axis too, the gradient's part in an all-reduce.

The sums of BatchNorm and of the loss, one value per channel or less, are listed apart. XLA for CPUs
has no pass that makes reduce-scatters: there a gradient that is to be split is an all-reduce of the
same payload, of which each device keeps its part. Exit code 1 if gradients or parameters exceed
the theory by more than 10 %, or if anything else as large as a matrix is sent.
"""

import argparse
import collections
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx
from jax import numpy as jnp

from flaxseg import models
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import FSDP, MIN_SHARDED, gather_for_gradient, make_mesh, state_sharding
from flaxseg.training.config import parse_overrides
from flaxseg.training.optim import make_optimizer
from flaxseg.training.step import compile_step, init_state, make_train_step

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_INSTRUCTION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\((.*)")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(r"(?:body|condition|calls|to_apply|branch_computations)=\{?([%\w.\-, ]+)\}?")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_TENSOR = re.compile(r"([a-z]+\d+)\[([\d,]*)\]")

Shape = tuple[int, ...]


class Collective(NamedTuple):
    """One tensor in one collective instruction.

    Attributes:
        kind: of `KINDS`.
        shape: of the result.
        bytes: of a whole tensor: of a reduce-scatter, of its operand.
        group: number of devices that take part.
        times: how often a step runs the instruction.
        backward: it belongs to the gradient.
    """

    kind: str
    shape: Shape
    bytes: int
    group: int
    times: int
    backward: bool


def collectives(text: str) -> list[Collective]:
    """Every tensor in the collectives of a compiled program, from its HLO text."""
    times = _executions(text)
    found = []
    for computation, line in _lines(text):
        match = _INSTRUCTION.search(line)
        if not match or not times[computation]:
            continue
        results, kind, rest = match.groups()
        group = _group_size(rest)
        tensors = _TENSOR.findall(results)
        if kind in ("all-to-all", "collective-permute"):
            tensors = tensors[:1]  # a tuple of equal parts; the result is all of them
        for dtype, dims in tensors:
            shape = tuple(int(n) for n in dims.split(",") if n)
            size = math.prod(shape) * int(re.sub(r"\D", "", dtype)) // 8
            size *= group if kind in ("reduce-scatter", "all-to-all") else 1
            backward = "transpose(" in rest
            found.append(Collective(kind, shape, size, group, times[computation], backward))
    return found


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Each line with the name of its computation."""
    computation = ""
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        computation = header.group(1) if header else computation
        yield computation, line


def _executions(text: str) -> dict[str, int]:
    """How often a run of the program executes each computation."""
    callers: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
    entry = ""
    for computation, line in _lines(text):
        if line.startswith("ENTRY"):
            entry = computation
        trips = _TRIPS.search(line)
        for names in _CALLED.findall(line):
            for name in re.findall(r"[\w.\-]+", names):
                callers[name].append((computation, int(trips.group(1)) if trips else 1))
    times = collections.defaultdict(int, {entry: 1})

    def count(name: str) -> int:
        if name not in times:
            times[name] = sum(count(caller) * trips for caller, trips in callers[name])
        return times[name]

    for name in list(callers):
        count(name)
    return times


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


def what_they_carry(found: Iterable[Collective], params: Any, data: int) -> list[str]:
    """What each tensor is: "parameters", "gradients", "statistics" or "other".

    A tensor is a gradient if it has as many bytes as a parameter whose gradient was not found yet:
    one that is summed twice is something else the second time. (XLA transposes and flattens what it
    sends, so the shape says nothing.) A vector that is no gradient is a sum over the batch, of
    BatchNorm or of the loss.

    Args:
        found: the collectives.
        params: parameters with their shardings, abstract or not.
        data: devices with the same part of the state.
    """
    gradients: collections.Counter[int] = collections.Counter()
    gathered: collections.Counter[int] = collections.Counter()
    for size, part in _sizes(params):
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
        expected[one.bytes] -= one.times
        if expected[one.bytes] >= 0:
            return name
        return "statistics" if vector else "other"

    return [carried(one) for one in found]


def _sizes(params: Any) -> Iterator[tuple[int, int]]:
    """Bytes of each parameter, and of the part of it that a device holds."""
    for leaf in jax.tree.leaves(params):
        part = math.prod(leaf.sharding.shard_shape(leaf.shape))
        yield leaf.size * leaf.dtype.itemsize, part * leaf.dtype.itemsize


def theory(params: Any, data: int) -> dict[str, int]:
    """The least payload of a step in bytes: of "parameters" and of "gradients"."""
    total = {"parameters": 0, "gradients": 0}
    for size, part in _sizes(params):
        total["gradients"] += size
        if part < size:
            total["parameters"] += size
            total["gradients"] += part if data > 1 else 0
    return total


class Program(NamedTuple):
    """A compiled step, and its abstract parameters with their shardings."""

    text: str
    params: Any


def compile_training(
    config: models.Config, devices: int, fsdp: int, min_size: int = MIN_SHARDED
) -> Program:
    """Compiles the training step of a network for one image on each device."""
    size = config.fixed_size or (64, 64)
    mesh = make_mesh(jax.devices()[:devices], fsdp)
    schedule = optax.constant_schedule(0.01)
    tx = make_optimizer("sgd", schedule, momentum=0.9, weight_decay=1e-4)
    state = jax.eval_shape(lambda: init_state(models.build(config, rngs=models.params_keys(0)), tx))
    sharding = state_sharding(state, mesh, min_size)
    step = make_train_step(
        nnx.split(models.abstract_model(config), nnx.Param, nnx.BatchStat)[0],
        tx,
        schedule=schedule,
        preprocess=Preprocess(),
        aux_weights=config.aux_weights,
        gather=gather_for_gradient(sharding.params, mesh) if mesh.shape[FSDP] > 1 else None,
    )
    image = jax.ShapeDtypeStruct((devices, *size, 3), jnp.uint8)
    label = jax.ShapeDtypeStruct((devices, *size), jnp.uint8)
    lowered = compile_step(step, mesh, sharding).lower(state, image, label)
    params = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state.params,
        sharding.params,
    )
    return Program(lowered.compile().as_text() or "", params)


def report(program: Program, devices: int, fsdp: int, every: bool) -> bool:
    """Prints the tables; True if the step sends what it must and no more."""
    found = collectives(program.text)
    names = what_they_carry(found, program.params, devices // fsdp)
    totals: dict[tuple[str, str, int], list[int]] = collections.defaultdict(lambda: [0, 0])
    for one, name in zip(found, names, strict=True):
        total = totals[name, one.kind, one.group]
        total[0] += one.times
        total[1] += one.times * one.bytes
        if every:
            print(f"{name:10} {one.kind} of {one.group} x{one.times} {one.shape} {one.bytes} bytes")
    print("| carries | collective | devices | tensors | bytes |")
    print("|---|---|---|---|---|")
    for (name, kind, group), (count, size) in sorted(totals.items()):
        print(f"| {name} | {kind} | {group} | {count} | {size:,} |")
    print("\n| | least bytes | found | ratio |\n|---|---|---|---|")
    good = True
    for name, least in theory(program.params, devices // fsdp).items():
        size = sum(total[1] for (carried, *_), total in totals.items() if carried == name)
        if least or size:
            ratio = size / max(least, 1)
            good &= 1 / 1.1 <= ratio <= 1.1
            print(f"| {name} | {least:,} | {size:,} | {ratio:.3f} |")
    least = sum(theory(program.params, devices // fsdp).values())
    other = sum(total[1] for (name, *_), total in totals.items() if name == "other")
    print(f"| other | 0 | {other:,} | {other / least:.3f} of all |")
    return good and other <= 0.1 * least


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="collectives of a compiled training step")
    parser.add_argument("name", help="a network of flaxseg.list_models()")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--override", nargs="*", default=[], help="fields of its configuration")
    parser.add_argument("--all", action="store_true", help="a line for each tensor, too")
    options = parser.parse_args()
    config = models.get_config(options.name, **parse_overrides(options.override))
    program = compile_training(config, options.devices, options.fsdp)
    print(f"{options.name}, {options.devices // options.fsdp} (data) x {options.fsdp} (fsdp)\n")
    sys.exit(0 if report(program, options.devices, options.fsdp, options.all) else 1)


if __name__ == "__main__":
    # Neither option changes what is sent, only how long it takes to compile the rest.
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=64")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_disable_most_optimizations", True)
    main()
