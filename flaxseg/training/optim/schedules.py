"""Learning rates as functions of the number of updates already made."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from flaxseg.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """The learning rate of a group of weights; an `optax.Schedule`.

    Attributes:
        config: names the schedule and its settings, which count in epochs.
        steps_per_epoch: optimiser steps of one epoch.
        total_steps: length of the run.
        factor: of the group. It multiplies `lr` but not `min_lr`, as in mmsegmentation: all
            groups end at the same rate.
    """

    config: TrainConfig
    steps_per_epoch: int
    total_steps: int
    factor: float = 1.0

    def times(self, factor: float) -> "LearningRate":
        """The learning rate of a group with this factor."""
        return dataclasses.replace(self, factor=self.factor * factor)

    def __call__(self, count: ArrayLike) -> jax.Array:
        """The rate after `count` updates, a scalar; float64 where that is enabled."""
        # Whole numbers, so that no drop comes one step late.
        count = jnp.asarray(count)
        rate = self._schedule(count) * self._warmup(count)
        config = self.config
        if config.swa_start is None or config.swa_lr is None:
            return jnp.asarray(rate)
        averaging = count >= config.swa_start * self.steps_per_epoch
        return jnp.where(averaging, config.swa_lr * self.factor, rate)

    @property
    def _warmup_steps(self) -> int:
        steps = self.config.warmup_steps
        return round(self.config.warmup_epochs * self.steps_per_epoch) if steps is None else steps

    def _schedule(self, count: jax.Array) -> ArrayLike:
        config, epoch = self.config, self.steps_per_epoch
        begin = self._warmup_steps if config.after_warmup else 0
        elapsed = jnp.maximum(count - begin, 0)
        if config.schedule_by == "epoch":
            elapsed = elapsed // epoch * epoch
        peak, low = config.lr * self.factor, config.min_lr
        end = (config.schedule_epochs or 0) * epoch or self.total_steps
        length = max(end - begin, 1)
        match config.schedule:
            case "step":
                return peak * _power(config.gamma, elapsed // (config.step_size * epoch))
            case "multistep":
                drops = [elapsed >= drop * epoch for drop in config.milestones or ()]
                return peak * _power(config.gamma, jnp.asarray(drops).sum())
            case "poly":
                curve = optax.polynomial_schedule(peak, low, config.power, length)
            case "linear":
                curve = optax.linear_schedule(peak, low, length)
            case "cosine":
                curve = optax.cosine_decay_schedule(peak, length, low / peak)
            case "constant":
                curve = optax.constant_schedule(jnp.asarray(peak))
        # An int32 count would make the rate float32 even where the parameters are float64.
        return curve(jnp.asarray(elapsed, float))

    def _warmup(self, count: jax.Array) -> ArrayLike:
        """The part of the schedule's rate; it multiplies, and does not shift the schedule."""
        steps, ratio = self._warmup_steps, self.config.warmup_ratio
        if not steps:
            return 1.0
        if ratio is None and self.config.warmup == "linear":
            return jnp.minimum(1.0, jnp.asarray(count + 1, float) / steps)
        ratio = 1 / steps if ratio is None else ratio
        done = jnp.minimum(1.0, jnp.asarray(count, float) / steps)
        if self.config.warmup == "exponential":
            return jnp.power(ratio, 1 - done)
        return ratio + (1 - ratio) * done


def _power(base: float, exponent: jax.Array) -> jax.Array:
    return jnp.power(base, jnp.asarray(exponent, float))


def make_schedule(config: TrainConfig, steps_per_epoch: int, total_steps: int) -> LearningRate:
    """The learning rate of weights whose factor is 1.

    Args:
        config: names the schedule and its settings, which count in epochs.
        steps_per_epoch: optimiser steps of one epoch.
        total_steps: length of the run, where "poly", "linear" and "cosine" end by default.
    """
    return LearningRate(config, steps_per_epoch, total_steps)
