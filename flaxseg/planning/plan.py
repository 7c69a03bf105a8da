"""What one training step costs each chip, by the program that XLA makes of it."""

import collections
import dataclasses
import time
from typing import Any

import jax

from flaxseg.planning.chips import Chip
from flaxseg.planning.collectives import collectives
from flaxseg.planning.dataless import blueprint_without_data, flops_on_a_cpu, step_flops
from flaxseg.planning.estimate import Part, estimate
from flaxseg.planning.memory import Memory, does_not_fit
from flaxseg.planning.payload import least_sent, what_they_carry
from flaxseg.planning.products import Products, products
from flaxseg.planning.topology import Topology
from flaxseg.sharding import DATA, FSDP
from flaxseg.training.blueprint import Blueprint
from flaxseg.training.config import TrainConfig
from flaxseg.training.program import StepProgram


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What the collectives of one kind send in a step.

    Attributes:
        carries: "parameters", "gradients", "statistics" or "other".
        kind: such as "all-reduce".
        devices: that take part in each.
        tensors: number of them.
        bytes: of whole tensors.
        sent: bytes that leave each chip.
    """

    carries: str
    kind: str
    devices: int
    tensors: int
    bytes: int
    sent: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a training step costs. Everything but `parameters` is per chip and step.

    Attributes:
        model: network.
        topology: devices that it was compiled for.
        chips: number of them.
        mesh: sizes of the axes "data" and "fsdp".
        dtype: number format of the computation.
        batch_size: images of all chips together.
        image_size: height and width.
        parameters: number of parameters of the network.
        memory: bytes.
        available: bytes of memory that a program may use; None where it is unknown.
        flops: operations by XLA's count before it optimises; None where it does not tell.
        bytes_accessed: read and written, by XLA's count; None where it does not tell.
        traffic: what is sent between chips.
        least_sent: bytes that must be sent at least, with parameters in their own format.
        bounds: seconds that "FLOPs", "memory" and "links" take at least, where they are known.
        products: what is multiplied, in which number format.
        parts: what the step spends its time in, by XLA's own estimate; empty where it has none.
        xla_seconds: the sum of `parts`; None where there is none that could be true.
        compile_seconds: to trace and compile the step, on this machine.
        notes: what was assumed.
    """

    model: str
    topology: str
    chips: int
    mesh: dict[str, int]
    dtype: str
    batch_size: int
    image_size: tuple[int, int]
    parameters: int
    memory: Memory
    available: int | None
    flops: float | None
    bytes_accessed: float | None
    traffic: tuple[Traffic, ...]
    least_sent: float
    bounds: dict[str, float]
    products: tuple[Products, ...]
    parts: tuple[Part, ...]
    xla_seconds: float | None
    compile_seconds: float
    notes: tuple[str, ...]

    @property
    def sent(self) -> float:
        """Bytes that leave each chip."""
        return sum(row.sent for row in self.traffic)

    @property
    def bound(self) -> str | None:
        """What takes longest of `bounds`."""
        return max(self.bounds, key=self.bounds.__getitem__) if self.bounds else None

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        values = dataclasses.asdict(self) | {"sent": self.sent, "bound": self.bound, "fits": True}
        values["memory"]["peak"] = self.memory.peak
        return values


def make_plan(config: TrainConfig, topology: Topology, num_classes: int | None = None) -> Plan:
    """Compiles the training step of a run for a topology, and reads off what it costs.

    Args:
        config: settings of the run.
        topology: devices.
        num_classes: classes; None for those of the data set, which is not opened.

    Raises:
        DoesNotFit: the step needs more memory than a chip has.
        FlaxsegError: settings that do not fit.
    """
    blueprint, assumed = blueprint_without_data(config, topology, num_classes)
    begin = time.perf_counter()
    program = compile_step(blueprint, topology.name)
    seconds = time.perf_counter() - begin
    # XLA does not tell those of a program for TPUs.
    flops = flops_on_a_cpu(config, num_classes) if topology.chip else step_flops(blueprint)
    text = program.run.as_text() or ""
    cost: Any = program.run.cost_analysis()
    cost = cost if isinstance(cost, dict) else {}
    params, mesh = blueprint.abstract_state().params, dict(blueprint.mesh.shape)
    learning, frozen = blueprint.frozen.split(params)
    traffic = _traffic(text, params, mesh[DATA])
    per_chip = flops and flops / blueprint.mesh.size
    accessed = _positive(cost.get("bytes accessed"))
    bounds = _bounds(topology.chip, per_chip, accessed, sum(row.sent for row in traffic))
    parts = tuple(estimate(text, topology.chip.clock)) if topology.chip else ()
    return Plan(
        model=config.model,
        topology=topology.name,
        chips=blueprint.mesh.size,
        mesh=mesh,
        dtype=config.dtype,
        batch_size=config.images_per_step,
        image_size=config.image_size,
        parameters=program.parameters,
        memory=Memory.of(blueprint, program),
        available=topology.chip and topology.chip.memory,
        flops=per_chip,
        bytes_accessed=accessed,
        traffic=traffic,
        least_sent=least_sent(learning, mesh[DATA], mesh[FSDP], frozen),
        bounds=bounds,
        products=products(text),
        parts=parts,
        xla_seconds=_credible(sum(part.seconds for part in parts), bounds),
        compile_seconds=seconds,
        notes=(assumed, *_remarks(config, accessed)),
    )


def compile_step(blueprint: Blueprint, where: str) -> StepProgram:
    """The training step of a run.

    Args:
        blueprint: of the run.
        where: name of its devices, for the message.

    Raises:
        DoesNotFit: the compiler refuses it, as it needs more memory than a chip has.
    """
    try:
        return blueprint.program
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise does_not_fit(str(error), blueprint.config.images_per_step, where) from None


def _remarks(config: TrainConfig, accessed: float | None) -> list[str]:
    if config.accumulate == 1 or accessed is None:
        return []
    return ["bytes accessed are those of one part of --accumulate: XLA counts a loop once"]


def _traffic(text: str, params: Any, data_size: int) -> tuple[Traffic, ...]:
    found = collectives(text)
    totals: dict[tuple[str, str, int], list[Any]] = collections.defaultdict(lambda: [0, 0, 0.0])
    for one, carries in zip(found, what_they_carry(found, params, data_size), strict=True):
        total = totals[carries, one.kind, one.group]
        for index, value in enumerate((1, one.bytes, one.sent)):
            total[index] += one.times * value
    return tuple(Traffic(*key, *totals[key]) for key in sorted(totals))


def _bounds(
    chip: Chip | None, flops: float | None, accessed: float | None, sent: float
) -> dict[str, float]:
    if chip is None:
        return {}
    known = {"FLOPs": (flops, chip.flops), "memory": (accessed, chip.bandwidth)}
    known["links"] = (sent, chip.links)
    return {name: amount / rate for name, (amount, rate) in known.items() if amount is not None}


def _credible(seconds: float, bounds: dict[str, float]) -> float | None:
    """XLA's estimate, unless it is none: nothing, or faster than the chip can be."""
    return seconds if seconds > 0 and seconds >= bounds.get("FLOPs", 0.0) else None


def _positive(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None
