"""Optimisers as chains of optax transformations, with torch's arithmetic."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flaxseg.training.optim.adam import scale_by_adam
from flaxseg.training.optim.groups import NO_DECAY, GroupFn, make_rules, map_groups, match
from flaxseg.training.optim.schedules import LearningRate


def make_optimizer(
    name: str,
    schedule: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
    clip_grad: float | None = None,
    groups: GroupFn | None = None,
) -> optax.GradientTransformation:
    """An optimiser.

    Args:
        name: "sgd" in torch's order: decay joins the gradient, the sum enters the momentum, the
            learning rate comes last. "adam" and "adamw" as torch's, epsilon 1e-8. "lamb"
            (https://arxiv.org/abs/1904.00962), epsilon 1e-6. "lars"
            (https://arxiv.org/abs/1708.03888), trust coefficient 0.001, the learning rate inside
            the momentum. LAMB and LARS adapt to the norm of a tensor what decays, and leave norms
            and biases to plain Adam and SGD.
        schedule: learning rate, or a function of the number of updates already made.
        momentum: of SGD and LARS, 0 to below 1; 0 keeps no buffer.
        nesterov: Nesterov's momentum.
        betas: of Adam, AdamW and LAMB.
        weight_decay: added to the gradient of SGD, Adam and LARS; AdamW and LAMB shrink the weights
            by this times the learning rate.
        clip_grad: largest norm of the whole gradient, before any decay.
        groups: factors of learning rate and decay by native key; the optimiser's usual ones if
            None.
    """
    groups = groups or match(make_rules((), no_decay=NO_DECAY[name]))
    clip = [] if clip_grad is None else [clip_by_global_norm(clip_grad)]
    decay = [add_decay(weight_decay, groups)] if weight_decay else []
    trace = [optax.trace(momentum, nesterov)] if momentum else []
    rate = scale_by_learning_rate(schedule, groups)
    chains = {
        "sgd": lambda: (*decay, *trace, rate),
        "adam": lambda: (*decay, scale_by_adam(betas), rate),
        "adamw": lambda: (scale_by_adam(betas), *decay, rate),
        "lamb": lambda: (scale_by_adam(betas, eps=1e-6), *decay, _adapt(1.0, groups), rate),
        "lars": lambda: (*decay, _adapt(0.001, groups), rate, *trace),
    }
    return optax.chain(*clip, *chains[name]())


def clip_by_global_norm(largest: float) -> optax.GradientTransformation:
    """Scales gradients whose common Euclidean norm is above `largest` down to it.

    As `torch.nn.utils.clip_grad_norm_`, which adds 1e-6 to the norm; optax's own does not.
    """

    def clip(updates: Any, params: Any) -> Any:
        scale = jnp.minimum(1.0, largest / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda update: update * scale.astype(update.dtype), updates)

    return optax.stateless(clip)


def add_decay(weight_decay: float, groups: GroupFn) -> optax.GradientTransformation:
    """Adds the weights, times the decay and their group's factor, to the updates."""

    def add(factors, update, param):
        return update + weight_decay * factors.decay * param if factors.decay else update

    return optax.stateless(lambda updates, params: map_groups(add, groups, updates, params))


def scale_by_learning_rate(
    schedule: optax.ScalarOrSchedule, groups: GroupFn
) -> optax.GradientTransformation:
    """Multiplies the updates by minus the learning rate of their group.

    The state is the number of updates made. A `LearningRate` knows the rates of groups; any other
    schedule is multiplied by their factor.
    """

    def rate(count: Any, factor: float) -> Any:
        if isinstance(schedule, LearningRate):
            return schedule.times(factor)(count)
        return (schedule(count) if callable(schedule) else schedule) * factor

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        @functools.cache  # computed once for each factor
        def descent(factor: float, dtype: Any) -> jax.Array:
            return jnp.asarray(-rate(state.count, factor), dtype)

        def scale(factors, leaf):
            return descent(factors.lr, leaf.dtype) * leaf

        count = optax.safe_increment(state.count)
        return map_groups(scale, groups, updates), optax.ScaleByScheduleState(count)

    return optax.GradientTransformation(
        lambda params: optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)), update
    )


def _adapt(coefficient: float, groups: GroupFn) -> optax.GradientTransformation:
    """Scales the update of each tensor that decays to the norm of the tensor."""
    ratio = optax.scale_by_trust_ratio(trust_coefficient=coefficient)

    def decays(params: Any) -> Any:
        return map_groups(lambda factors, _: bool(factors.decay), groups, params)

    return optax.masked(ratio, decays)
