"""Learning-rate schedules and the optimiser, step by step equal to torch.optim."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from flaxseg.training.config import TrainConfig


def make_schedule(config: TrainConfig, steps_per_epoch: int, total_steps: int) -> optax.Schedule:
    """The learning rate as a function of the number of updates already made.

    Args:
        config: names the schedule and its settings, which count in epochs.
        steps_per_epoch: optimiser steps of one epoch.
        total_steps: length of the run, where the "poly" schedule reaches 0.
    """
    if config.schedule == "step":
        schedule = _step_schedule(config.lr, config.gamma, config.step_size * steps_per_epoch)
    elif config.schedule == "poly":
        poly = optax.polynomial_schedule(config.lr, 0.0, config.power, total_steps)
        # An int32 count would make the rate float32 even where the parameters are float64.
        schedule = lambda count: poly(jnp.asarray(count, float))  # noqa: E731
    else:
        schedule = optax.constant_schedule(config.lr)
    return _with_warmup(schedule, round(config.warmup_epochs * steps_per_epoch))


def _step_schedule(lr: float, gamma: float, period: int) -> optax.Schedule:
    """Times gamma after every `period` updates; whole numbers, so no drop is one step late."""
    return lambda count: lr * jnp.power(gamma, jnp.asarray(jnp.asarray(count) // period, float))


def _with_warmup(schedule: optax.Schedule, steps: int) -> optax.Schedule:
    """Scales the first steps by 1/steps, 2/steps ... without shifting the schedule itself."""
    if steps == 0:
        return schedule
    return lambda count: schedule(count) * jnp.minimum(1.0, jnp.asarray(count + 1, float) / steps)


def make_optimizer(
    name: str,
    schedule: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """An optimiser with torch's arithmetic.

    Args:
        name: "sgd", in torch's order: decay joins the gradient, the sum enters the momentum, the
            learning rate comes last. Or "adamw" with betas 0.9 and 0.999 and epsilon 1e-8.
        schedule: learning rate, or a function of the number of updates already made.
        momentum: of SGD, 0 to below 1; 0 keeps no buffer.
        weight_decay: SGD adds this times the weights to all gradients; AdamW shrinks what
            `decays` names by this times the learning rate.
    """
    if name == "adamw":
        return optax.adamw(schedule, weight_decay=weight_decay, mask=decays)
    sgd = optax.sgd(schedule, momentum=momentum or None)
    return optax.chain(optax.add_decayed_weights(weight_decay), sgd) if weight_decay else sgd


def decays(params: Any) -> Any:
    """Which parameters AdamW shrinks: matrices and kernels, not norms, biases and embeddings."""

    def is_weight(path: tuple[Any, ...], leaf: jax.Array) -> bool:
        return leaf.ndim > 1 and not any(name in str(path) for name in ("pos_embed", "cls_token"))

    return jax.tree.map_with_path(is_weight, params)
