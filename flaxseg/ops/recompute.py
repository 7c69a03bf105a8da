"""Less memory for the gradient: values are computed again instead of kept.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost",
https://arxiv.org/abs/1604.06174.
"""

from collections.abc import Callable
from typing import Any

import jax
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
        run_again = jax.vjp(lambda x, args: call(x, *args), _after(gradients[0], x), args)[1]
        return run_again(gradients)

    run.defvjp(forward, backward)
    return run(x, (*args, *closed_over))


def _after(gradient: jax.Array, x: jax.Array) -> jax.Array:
    """x, but not before the gradient is there."""
    # One number of every sample, not of the batch: where samples lie on several devices, each
    # has its own. Nothing is above infinity, but compilers do not know that.
    probe = gradient.reshape(len(gradient), -1)[:, 0]
    zero = jnp.where(probe > jnp.inf, 1, 0).astype(x.dtype)
    return x + zero.reshape(-1, *[1] * (x.ndim - 1))
