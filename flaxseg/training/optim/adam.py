"""Adam's direction."""

import math
from typing import Any

import jax
import optax
from jax import numpy as jnp


def scale_by_adam(betas: tuple[float, float], *, eps: float = 1e-8) -> optax.GradientTransformation:
    """Algorithm 1 of https://arxiv.org/abs/1412.6980 without its learning rate, optax's state.

    optax computes 1 - beta ** count in float32, which does not hold 0.999: its first steps are
    6e-6 of their length off, a hundred times what rounding costs torch.

    Args:
        betas: decay of the means of the gradient and of its square, from 0 to below 1.
        eps: added to the root of the second mean.
    """

    def corrected(moments: Any, beta: float, count: Any) -> Any:
        share = -jnp.expm1(count * (math.log(beta) if beta else -math.inf))
        return jax.tree.map(lambda moment: moment / share.astype(moment.dtype), moments)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        del params
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(updates, state.mu, betas[0], 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, betas[1], 2)
        first, second = corrected(mu, betas[0], count), corrected(nu, betas[1], count)
        directions = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), first, second)
        return directions, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam(*betas).init, update)
