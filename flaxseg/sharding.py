"""Devices: a mesh of two axes, over both of which the batch is split.

Along the axis "data" all devices hold the same state; along "fsdp" it is split (fully sharded data
parallel, stage 3 of ZeRO, https://arxiv.org/abs/1910.02054). A step gathers the parameters for its
own computation and hands the gradients back in parts.
"""

import collections
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flaxseg.errors import ConfigError

DATA = "data"
"""Name of the mesh axis along which devices hold the same state."""

FSDP = "fsdp"
"""Name of the mesh axis along which parameters and optimiser state are split."""

MIN_SHARDED = 2**14
"""Tensors of fewer elements (64 KiB in float32) stay whole on every device: to gather them would
take longer than they are worth, and all of them together are about 1 % of a network."""


def make_mesh(devices: Sequence[Any] | None = None, fsdp: int = 1) -> Mesh:
    """The mesh of the given devices, by default all of them.

    `fsdp` of them share one copy of the state. Each process owns a contiguous part of the batch,
    in the order of the processes.
    """
    devices = jax.devices() if devices is None else devices
    shape, axes = (len(devices) // fsdp, fsdp), (DATA, FSDP)
    types = (AxisType.Auto,) * len(axes)
    if len({device.process_index for device in devices}) == 1:
        return jax.make_mesh(shape, axes, axis_types=types, devices=devices)
    # jax.make_mesh may follow the wires of a pod, whatever process a device belongs to.
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered).reshape(shape), axes, axis_types=types)


def choose_devices(
    count: int | None, batch_size: int, fsdp: int = 1, devices: Sequence[Any] | None = None
) -> list[Any]:
    """The devices that share the batch, equally many of each process.

    Args:
        count: how many, or None for all.
        batch_size: images per step, which every device must share equally.
        fsdp: how many share one copy of the state.
        devices: to choose from, by default `jax.devices()`.

    Raises:
        ConfigError: if there are fewer devices, the processes or copies cannot share them equally,
            or the batch cannot be divided among them.
    """
    devices = jax.devices() if devices is None else devices
    by_process: dict[int, list[Any]] = collections.defaultdict(list)
    for device in devices:
        by_process[device.process_index].append(device)
    total, processes = len(devices), len(by_process)
    if count is not None and count > total:
        kind = devices[0].platform
        raise ConfigError(f"--devices is {count}, but only {total} ({kind}) are there")
    count = count or total
    if count % processes:
        raise ConfigError(
            f"--devices is {count}, which {processes} processes cannot share equally: make it a "
            f"multiple of {processes}"
        )
    if count % fsdp:
        divisors = ", ".join(str(n) for n in range(1, count + 1) if count % n == 0)
        raise ConfigError(f"--fsdp is {fsdp}, of {count} devices it can be {divisors}")
    if batch_size % count:
        raise ConfigError(
            f"--batch-size is {batch_size}, which {count} devices cannot share equally: "
            f"make it a multiple of {count} or use fewer with --devices"
        )
    return [device for own in by_process.values() for device in own[: count // processes]]


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds in full."""
    return NamedSharding(mesh, PartitionSpec())


def fsdp_spec(shape: Sequence[int], parts: int, min_size: int = MIN_SHARDED) -> PartitionSpec:
    """The rule by which a tensor of the training state is split: along its largest divisible axis.

    Args:
        shape: of a parameter, or of what an optimiser keeps for it: equal shapes are split alike.
        parts: devices along the axis "fsdp".
        min_size: number of elements below which a tensor stays whole.

    Returns:
        Where "fsdp" goes: to the largest axis that `parts` divides, the last one of equals. The
        tensor stays whole if there is none, or if it is small.
    """
    divisible = [(size, axis) for axis, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or math.prod(shape) < min_size or not divisible:
        return PartitionSpec()
    _, axis = max(divisible)
    return PartitionSpec(*[None] * axis, FSDP)


def state_sharding(state: Any, mesh: Mesh, min_size: int = MIN_SHARDED) -> Any:
    """The sharding of every tensor of a tree, by `fsdp_spec`; the tree may be abstract."""
    parts = mesh.shape.get(FSDP, 1)
    return jax.tree.map(
        lambda leaf: NamedSharding(mesh, fsdp_spec(leaf.shape, parts, min_size)), state
    )


def whole(tree: Any, mesh: Mesh | None) -> Any:
    """The tree with every tensor in full on every device; inside `jax.jit`."""
    if mesh is None or mesh.shape.get(FSDP, 1) == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def gather_for_gradient(sharding: Any, mesh: Mesh) -> Callable[[Any], Any]:
    """A function that makes split parameters whole, and whose gradient is split as they are.

    Said only of the parameters' places, XLA would be free to split activations instead: it gathers
    them over the batch where that looks cheaper, and the results then depend on the mesh. Said only
    of where gradients end, it is free to split the products that make them, and sends their sums
    round a ring part by part: a TPU then takes three times as long for those of a 3x3 convolution.

    Args:
        sharding: of the parameters, such as `state_sharding` gives.
        mesh: the devices.
    """

    @jax.custom_vjp
    def gather(params: Any) -> Any:
        return whole(params, mesh)

    def backward(_: None, gradient: Any) -> tuple[Any]:
        return (jax.lax.with_sharding_constraint(whole(gradient, mesh), sharding),)

    gather.defvjp(lambda params: (gather(params), None), backward)
    return gather


def batch_axes(mesh: Mesh) -> tuple[str, ...]:
    """The axes of a mesh over which the batch is split."""
    return tuple(axis for axis in (DATA, FSDP) if axis in mesh.shape)


def split_batch(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(batch_axes(mesh)))


def own_part(array: jax.Array) -> np.ndarray:
    """This process's part of what `put_batch` split, on the host."""
    parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def put_batch(batch: Any, mesh: Mesh, *, complete: bool = False) -> Any:
    """Starts the copy of a tree of host arrays to the devices, split along the first axis.

    Args:
        batch: this process's part of every array, in the order of the processes.
        mesh: the devices.
        complete: every process has all of every array instead.
    """
    sharding = split_batch(mesh)

    def put(array: Any) -> jax.Array:
        array = np.asarray(array)
        shape = array.shape if complete else None
        return jax.make_array_from_process_local_data(sharding, array, shape)

    return jax.tree.map(put, batch)
