"""Weight initialisers named after torch's, for (H, W, I, O) and (I, O) weights."""

from collections.abc import Callable

import jax
from jax import numpy as jnp
from jax.nn import initializers as jax_init
from jax.typing import DTypeLike

Initializer = Callable[[jax.Array, tuple[int, ...], DTypeLike], jax.Array]

torch_default: Initializer = jax_init.variance_scaling(1 / 3, "fan_in", "uniform")
"""U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what torch's Conv2d and Linear start with."""

kaiming_normal_fan_out: Initializer = jax_init.variance_scaling(2.0, "fan_out", "normal")
"""N(0, 2 / fan_out), for layers before a ReLU (He 2015, https://arxiv.org/abs/1502.01852)."""

kaiming_normal_fan_in: Initializer = jax_init.variance_scaling(2.0, "fan_in", "normal")
"""N(0, 2 / fan_in)."""

xavier_uniform: Initializer = jax_init.variance_scaling(1.0, "fan_avg", "uniform")
"""U(-b, b), b = sqrt(6 / (fan_in + fan_out)) (https://proceedings.mlr.press/v9/glorot10a.html)."""

zeros: Initializer = jax_init.zeros
ones: Initializer = jax_init.ones


def normal(std: float) -> Initializer:
    """N(0, std^2)."""
    return jax_init.normal(std)


def uniform(bound: float) -> Initializer:
    """U(-bound, bound)."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
