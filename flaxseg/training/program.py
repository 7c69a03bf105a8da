"""The training step compiled ahead of the first batch, and what it costs."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from flaxseg.sharding import split_batch
from flaxseg.training.step import StepMetrics, TrainState


@dataclasses.dataclass(frozen=True)
class StepProgram:
    """A compiled training step, which takes batches of one size only.

    Attributes:
        run: the compiled step.
        parameters: number of parameters of the network.
        memory: bytes that a step needs on each device: state, batch, activations and gradients.
            None where XLA does not tell.
    """

    run: jax.stages.Compiled
    parameters: int
    memory: int | None

    @classmethod
    def of(cls, lowered: jax.stages.Lowered, state: TrainState) -> "StepProgram":
        """Compiles a step, once: what it costs is read off the same program.

        Args:
            lowered: the step.
            state: shapes of the state that it takes.
        """
        compiled = lowered.compile()
        parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
        return cls(compiled, parameters, needed_memory(compiled))

    def __call__(
        self, state: TrainState, image: jax.Array, label: jax.Array
    ) -> tuple[TrainState, StepMetrics]:
        """Makes a step; the state that it takes is gone afterwards."""
        if all(device.platform == "cpu" for device in state.step.devices()):
            # What XLA has to wait for it runs in another thread, see `flaxseg.heap`.
            jax.block_until_ready((image, label))
        return self.run(state, image, label)

    def summary(self) -> str:
        """What it costs, in a line for the user."""
        parts = [f"{self.parameters / 1e6:.2f} M parameters"]
        if self.memory is not None:
            parts.append(f"{self.memory / 2**20:.0f} MiB per device")
        return ", ".join(parts)


def trace_step(
    train_step: Any,
    state: TrainState,
    mesh: Mesh,
    *,
    batch_size: int,
    image_size: tuple[int, int],
) -> jax.stages.Traced:
    """A step for batches of one size, traced.

    Args:
        train_step: the jitted step.
        state: shapes, dtypes and shardings of the state.
        mesh: devices.
        batch_size: images per step.
        image_size: their height and width.
    """
    place, pixels = split_batch(mesh), (batch_size, *image_size)
    image = jax.ShapeDtypeStruct((*pixels, 3), jnp.uint8, sharding=place)
    label = jax.ShapeDtypeStruct(pixels, jnp.uint8, sharding=place)
    return train_step.trace(state, image, label)


def peak_memory() -> int | None:
    """Most bytes that were in use on a device of this process so far; None where it is unknown."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in _devices()]
    known = [peak for peak in peaks if peak is not None]
    return max(known, default=None)


def _devices() -> list[Any]:
    return jax.local_devices()


def needed_memory(compiled: jax.stages.Compiled) -> int | None:
    """Bytes on each device: arguments, results that do not take their place, and temporaries.

    None where XLA does not tell.
    """
    use = compiled.memory_analysis()
    if use is None:
        return None
    kept = use.argument_size_in_bytes + use.output_size_in_bytes - use.alias_size_in_bytes
    return kept + use.temp_size_in_bytes
