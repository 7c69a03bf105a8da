"""The step of a run whose data is not opened, and what is assumed in its place."""

import dataclasses

import jax
import numpy as np

from flaxseg import data
from flaxseg.data.statistics import Statistics
from flaxseg.errors import ConfigError
from flaxseg.labels import LabelSet
from flaxseg.planning.topology import CPU, Topology
from flaxseg.training.blueprint import Blueprint, run_mesh
from flaxseg.training.config import TrainConfig
from flaxseg.training.flops import count_flops
from flaxseg.training.program import trace_step

STEPS_PER_EPOCH = 1000
"""The length of an epoch: the schedule's numbers depend on it, no cost."""


def blueprint_without_data(
    config: TrainConfig, topology: Topology, num_classes: int | None = None
) -> tuple[Blueprint, str]:
    """The step that `train` would run on a topology, and what was assumed about its data.

    Args:
        config: settings of the run.
        topology: devices.
        num_classes: classes; None for those of the data set, which is not opened.

    Raises:
        FlaxsegError: settings that do not fit.
    """
    mesh = run_mesh(config, topology.devices)
    if topology.chip is not None and mesh.size < len(topology.devices):
        raise ConfigError(
            f"--devices is {mesh.size}, {topology.name} has {len(topology.devices)}, and libtpu "
            "compiles for whole slices only: name a smaller --topology"
        )
    labels = _labels(config.data, num_classes)
    assumed = [f"{labels.num_classes} classes", f"epochs of {STEPS_PER_EPOCH} steps"]

    def count() -> Statistics:
        assumed.append("class weights as if classes were frequent in the order of their numbers")
        return unequal(labels.num_classes)

    blueprint = Blueprint.lay_out(
        config, mesh, labels=labels, steps_per_epoch=STEPS_PER_EPOCH, count=count
    )
    return blueprint, "assumed: " + ", ".join(assumed)


def _labels(name: str, num_classes: int | None) -> LabelSet:
    if num_classes is not None:
        return LabelSet.generic(num_classes)
    labels = data.known_labels(name)
    if labels is None:
        raise ConfigError(
            f"the number of classes of --data {name} depends on its files, which a plan does not "
            "read: give --num-classes"
        )
    return labels


def unequal(num_classes: int) -> Statistics:
    """One picture in which every class has more pixels than the one before."""
    counts = np.zeros((1, 256), np.int64)
    counts[0, :num_classes] = 1 + np.arange(num_classes)
    return Statistics(np.ones((1, 2), np.int64), counts, num_classes)


def flops_on_a_cpu(config: TrainConfig, num_classes: int | None = None) -> float | None:
    """Operations of a step over all devices: they depend neither on these nor on their number.

    Args:
        config: settings of the run.
        num_classes: as for `blueprint_without_data`.
    """
    alone = dataclasses.replace(config, devices=1, fsdp=1)
    topology = Topology("cpu:1", jax.devices(CPU)[:1], None)
    blueprint, _ = blueprint_without_data(alone, topology, num_classes)
    return step_flops(blueprint)


def step_flops(blueprint: Blueprint) -> float | None:
    """Operations of a step over all its devices; None where XLA does not tell, as for TPUs."""
    config, mesh = blueprint.config, blueprint.mesh
    traced = trace_step(
        blueprint.train_step,
        blueprint.abstract_state(),
        mesh,
        batch_size=config.images_per_step,
        image_size=config.image_size,
    )
    return count_flops(traced, traced.lower(), mesh.devices.flat[0].platform)
