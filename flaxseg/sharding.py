"""Devices: one mesh axis over the batch, everything else replicated."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flaxseg.errors import ConfigError

DATA = "data"
"""Name of the mesh axis that splits the batch."""


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A one-dimensional mesh over the given devices, by default all of them."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


def choose_devices(count: int | None, batch_size: int) -> list[Any]:
    """The devices that share the batch.

    Args:
        count: how many of `jax.devices()`, or None for all.
        batch_size: images per step, which every device must share equally.

    Raises:
        ConfigError: if there are fewer devices, or the batch cannot be divided among them.
    """
    available = jax.devices()
    if count is not None and count > len(available):
        kind = available[0].platform
        raise ConfigError(f"--devices is {count}, but only {len(available)} ({kind}) are there")
    count = count or len(available)
    if batch_size % count:
        raise ConfigError(
            f"--batch-size is {batch_size}, which {count} devices cannot share equally: "
            f"make it a multiple of {count} or use fewer with --devices"
        )
    return available[:count]


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds in full."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Starts the copy of a tree of host arrays to the devices, split along the first axis."""
    sharding = split_batch(mesh)
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, np.asarray(array)), batch
    )
