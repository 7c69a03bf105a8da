"""`--batch-size auto`: the most images whose step fits the memory of the devices at hand."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from flaxseg import distributed
from flaxseg.errors import ConfigError
from flaxseg.model_dir import CONFIG_FILE
from flaxseg.planning.dataless import unequal
from flaxseg.planning.largest import find_largest
from flaxseg.planning.memory import DoesNotFit, Memory
from flaxseg.planning.plan import compile_step
from flaxseg.training.blueprint import Blueprint, run_mesh
from flaxseg.training.compile_cache import keep_programs
from flaxseg.training.config import TrainConfig, resolved
from flaxseg.training.setup import open_source

AUTO, MIB = "auto", 2**20
SHARE = 0.9
"""Of a device's memory: evaluations and the next batch need some, too."""

SHARE_OF_A_MACHINE = 0.5
"""Of its memory where the devices are its CPUs: reading pictures needs some, and others do."""


def choose_batch_size(config: TrainConfig, say: Callable[[str], Any] | None = None) -> TrainConfig:
    """The settings with a number for `--batch-size auto`; others as they are.

    A run that has begun keeps its number. All processes of a run come to the same one.

    Args:
        config: settings.
        say: takes a line for the user about the choice.

    Raises:
        DoesNotFit: not even the smallest batch fits.
        FlaxsegError: settings or data that do not fit.
    """
    if config.batch_size != AUTO:
        return config
    before = resolved(config).directory / CONFIG_FILE
    if before.exists():
        size, why = TrainConfig.load(before).images_per_step, "as the run began"
    else:
        size, why = _largest(config)
    if say is not None:
        say(f"--batch-size auto: {size} images, {why}")
    return dataclasses.replace(config, batch_size=size)


def _largest(config: TrainConfig) -> tuple[int, str]:
    """The largest batch that fits, and words about it."""
    keep_programs(config)
    source, parts = open_source(config, "train"), config.accumulate
    chips = config.devices or jax.device_count()
    mesh = run_mesh(dataclasses.replace(config, batch_size=parts * chips))
    distributed.meet(mesh)
    available = _available(mesh)
    most = len(source) // chips // parts * parts
    if not most:
        raise ConfigError(
            f"--batch-size auto: {len(source)} training images are fewer than one for each of "
            f"{chips} devices in each of {parts} parts: use fewer with --devices or --accumulate"
        )

    def peak_of(images: int) -> int:
        blueprint = Blueprint.lay_out(
            dataclasses.replace(config, batch_size=images * chips),
            mesh,
            labels=source.labels,
            steps_per_epoch=max(len(source) // (images * chips), 1),
            count=lambda: unequal(source.labels.num_classes),
        )
        peak = Memory.of(blueprint, compile_step(blueprint, "the devices")).peak
        if peak > available:
            raise _too_large(images * chips, peak, available)
        return peak

    # Not a single image: some networks normalise over what is left of it, one value.
    found = find_largest(peak_of, parts, available, min(2 * parts, most), most)
    if not found.fits:
        peak_of(parts)  # raises, and tells how much is missing
    size, peak = found.fits * chips, found.peaks[found.fits]
    why = f"{_gib(peak)} of {_gib(available)} on each device"
    whole = "" if found.fits < most else ", the whole training set" * (size == len(source))
    return size, f"{why}{whole}; --lr stays {config.lr:g}"


def _available(mesh: Mesh) -> int:
    """Bytes that a program may use on each device, the least of all processes."""
    devices = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    known = [limit for limit in limits if limit]
    own = int(SHARE * min(known)) if known else _machine_memory() // len(devices)
    return -distributed.largest(-own // MIB) * MIB  # whole bytes are too many for 32 bits


def _machine_memory() -> int:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(SHARE_OF_A_MACHINE * total)


def _too_large(batch: int, peak: int, available: int) -> DoesNotFit:
    return DoesNotFit(
        f"--batch-size auto: a step of {batch} images needs {_gib(peak)} on each device, and a "
        f"program may use {_gib(available)}: give a smaller --image-size, --fsdp, or "
        "--override remat=true",
        peak,
        available,
    )


def _gib(number: int) -> str:
    return f"{number / 2**30:.2f} GiB"
