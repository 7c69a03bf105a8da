"""Arrays that XLA:CPU makes once, where it would rather make them anew for each reader."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp


def stored(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The function (map, weight, ...) -> array, whose result is in memory before anyone reads it.

    XLA:CPU fuses what it takes for cheap into everything that reads it. A sum of nine shifted maps
    is then summed anew for the mean of a BatchNorm, for its variance, its output and thrice in its
    gradient, and where nine taps read that output, nine times as often. No barrier survives to
    the pass that does it, but a branch does: here the one that is always taken.
    """

    def branch(x: jax.Array, weight: jax.Array, *args: Any) -> jax.Array:
        made = jax.eval_shape(function, x, weight, *args)

        def nothing(*_: Any) -> jax.Array:
            return jnp.zeros(made.shape, made.dtype)

        # Nothing is above infinity, but compilers do not know that.
        never = weight.reshape(-1)[0] > jnp.inf
        return lax.cond(never, nothing, function, x, weight, *args)

    return branch
