"""Less memory for the gradient: values are computed again instead of kept.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost",
https://arxiv.org/abs/1604.06174.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp


def recomputed(
    function: Callable[..., tuple[jax.Array, Any]], x: jax.Array, *args: Any
) -> tuple[jax.Array, Any]:
    """function(x, *args), of which the gradient keeps the arguments alone.

    `jax.checkpoint` does this with an optimisation barrier, which XLA:CPU drops before it merges
    equal computations: the values are kept after all. Here the second computation reads x plus a
    zero that comes from its gradient, so nothing can merge it with the first or do it earlier.

    Args:
        function: pure; returns an array (B, ...) and any further arrays. Traced once.
        x: (B, ...).
        *args: trees of arrays.
    """
    call, closed_over = jax.closure_convert(function, x, *args)

    @jax.custom_vjp
    def run(x, args):
        return call(x, *args)

    def forward(x, args):
        return call(x, *args), (x, args)

    def backward(saved, gradients):
        x, args = saved
        run_again = jax.vjp(lambda x, args: call(x, *args), after(gradients[0], x), args)[1]
        return run_again(gradients)

    run.defvjp(forward, backward)
    return run(x, (*args, *closed_over))


def late(gradient: jax.Array, x: jax.Array) -> jax.Array:
    """x, (B, ...), on CPUs not before the gradient, (B, ...), is there.

    What a gradient needs of x alone XLA:CPU computes as soon as it has x, and keeps it until then.
    Other compilers make it where it is read.
    """
    return lax.platform_dependent(gradient, x, cpu=after, default=_at_once)


def _at_once(gradient: jax.Array, x: jax.Array) -> jax.Array:
    del gradient
    return x


def after(gradient: jax.Array, x: jax.Array) -> jax.Array:
    """x, (B, ...), but not before the gradient, (B, ...), is there."""
    # One number of every sample, not of the batch: where samples lie on several devices, each
    # has its own. Nothing is above infinity, but compilers do not know that. It is not taken out of
    # the gradient in another shape: on a TPU that is a copy.
    probe = gradient[(..., *(0,) * (gradient.ndim - 1))]
    zero = jnp.where(probe > jnp.inf, 1, 0).astype(x.dtype)
    return x + zero.reshape(*x.shape[:1], *[1] * (x.ndim - 1))
