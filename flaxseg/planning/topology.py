"""Devices to compile for, by name: TPUs that need not be there, or simulated CPU devices."""

import importlib.util
import os
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from flaxseg.errors import ConfigError, did_you_mean
from flaxseg.planning.chips import CHIPS, Chip
from flaxseg.tpu import quiet_libtpu

CPU = "cpu"


class Topology(NamedTuple):
    """Devices to compile for.

    Attributes:
        name: such as "v5e:2x4" or "cpu:8".
        devices: one for each chip.
        chip: what is known of them; None for CPUs.
    """

    name: str
    devices: list[Any]
    chip: Chip | None


def find_topology(name: str) -> Topology:
    """The devices of a topology. JAX must not have been used for anything else before.

    Args:
        name: "KIND:AxB" for TPUs, with kinds of `CHIPS` and as many sides as the kind's torus has
            dimensions, or "cpu:N".

    Raises:
        ConfigError: an unknown name, libtpu is not installed, or JAX was started with fewer CPU
            devices.
    """
    kind, _, shape = name.partition(":")
    jax.config.update("jax_platforms", CPU)  # whatever else is there need not be woken
    if kind == CPU:
        return Topology(name, _cpus(name, shape), None)
    if kind not in CHIPS:
        raise ConfigError(
            f"--topology is {name!r}: no chip is called {kind!r}{did_you_mean(kind, [*CHIPS, CPU])}"
            "; give KIND:SHAPE, such as v5e:2x4, v5p:2x2x2 or cpu:8"
        )
    return Topology(name, _tpus(name, shape, CHIPS[kind]), CHIPS[kind])


def _cpus(name: str, count: str) -> list[Any]:
    if not (count.isdecimal() and int(count)):
        raise ConfigError(f"--topology is {name!r}, it must be cpu:N, such as cpu:8")
    try:
        jax.config.update("jax_num_cpu_devices", int(count))
    except RuntimeError:
        pass  # JAX is in use already
    devices = jax.devices(CPU)
    if len(devices) < int(count):
        raise ConfigError(
            f"--topology is {name!r}, but JAX was started with {len(devices)} CPU devices: plan in "
            "a process of its own"
        )
    return devices[: int(count)]


def _tpus(name: str, shape: str, chip: Chip) -> list[Any]:
    slices = f"such as {', '.join(chip.slices)}"
    pattern = rf"[1-9]\d*(x[1-9]\d*){{{chip.dimensions - 1}}}"
    if not re.fullmatch(pattern, shape):
        sides = f"{chip.dimensions} sides, {slices}"
        raise ConfigError(f"--topology is {name!r}, after the colon it must have {sides}")
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            f"--topology {name} needs libtpu, which compiles for TPUs on any machine: "
            "pip install 'flaxseg[plan]'"
        )
    quiet_libtpu()
    # Only the compiler is used, no chip is taken: several processes may do so at once.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    sides = [int(side) for side in shape.split("x")]
    # A host has 2 x 2 chips, or the only one.
    host = [min(side, 2) for side in sides[:2]] + [1]
    try:
        # "megacore" makes one device of the two cores of a chip, as JAX does on a v4 itself.
        core = {"chip_config_name": "megacore"} if name.startswith("v4") else {}
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=name, chips_per_host_bounds=host, **core
        )
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"--topology {name}: libtpu has no such slice, {slices} ({reason})"
        ) from None
    return list(found.devices)
