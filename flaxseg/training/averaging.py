"""Averages of the weights over the steps: exponential, or of snapshots (SWA)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flaxseg.training.config import TrainConfig


class Ema(NamedTuple):
    """An exponential moving average, as torch.optim.swa_utils has it.

    Attributes:
        decay: weight of the average against the new weights; the first step's are taken over.
    """

    decay: float

    def share(self, step: jax.Array) -> jax.Array:
        """The part of the weights that the update which made `step` left."""
        return jnp.where(step == 1, 1.0, 1.0 - self.decay)


class Swa(NamedTuple):
    """The plain mean of snapshots (https://arxiv.org/abs/1803.05407), as torchcontrib takes them.

    Until the first snapshot the average follows the weights.

    Attributes:
        start: updates before averaging begins; the first snapshot is taken `every` later.
        every: updates between two snapshots.
    """

    start: int
    every: int

    def share(self, step: jax.Array) -> jax.Array:
        """The part of the weights that the update which made `step` left."""
        done, rest = jnp.divmod(step - self.start, self.every)
        mean = jnp.where(rest == 0, 1.0 / jnp.maximum(done, 1), 0.0)
        return jnp.where(step <= self.start, 1.0, mean)


Averaging = Ema | Swa
"""`share(step)` is the part of the new weights in the average, a function of the step alone."""


def make_averaging(config: TrainConfig, steps_per_epoch: int) -> Averaging | None:
    """The average that the settings ask for."""
    if config.ema is not None:
        return Ema(config.ema)
    if config.swa_start is not None:
        return Swa(config.swa_start * steps_per_epoch, config.swa_every * steps_per_epoch)
    return None


def advance(average: Any, new: Any, share: jax.Array) -> Any:
    """The average after `share` of the new values has entered it, leaf by leaf."""

    def mix(mean: jax.Array, value: jax.Array) -> jax.Array:
        part = jnp.asarray(share, mean.dtype)
        # With a part of 1 the sum would be the value but for its last bit.
        return jnp.where(part == 1, value, mean + part * (value - mean))

    return jax.tree.map(mix, average, new)
