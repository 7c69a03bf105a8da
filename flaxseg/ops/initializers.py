"""Weight initialisers named after torch's, for (H, W, I, O) and (I, O) weights.

Each is a standard draw of its key, scaled: the values of `jax.nn.initializers` but for rounding. A
key may also be a function from a `Draw` to its numbers, which `flaxseg.models.keys` draws many at a
time.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import DTypeLike


class Draw(NamedTuple):
    """Random numbers as `jax.random.normal` or `jax.random.uniform` draw them by default."""

    distribution: Literal["normal", "uniform"]
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """How many."""
        return math.prod(self.shape)

    def __call__(self, key: jax.Array) -> jax.Array:
        """The numbers of a key."""
        return getattr(jax.random, self.distribution)(key, self.shape, self.dtype)


Key = jax.Array | Callable[[Draw], jax.Array]
Initializer = Callable[[Key, tuple[int, ...], DTypeLike], jax.Array]


def zeros(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Zeros."""
    del key
    return jnp.zeros(shape, dtype)


def normal(std: float) -> Initializer:
    """N(0, std^2)."""

    def init(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        numbers = _numbers(key, Draw("normal", shape, jnp.dtype(dtype)))
        return (numbers * np.asarray(std, numbers.dtype)).reshape(shape)

    return init


def uniform(bound: float) -> Initializer:
    """U(-bound, bound)."""

    def init(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        numbers = _numbers(key, Draw("uniform", shape, jnp.dtype(dtype)))
        return ((numbers * 2 - 1) * np.asarray(bound, numbers.dtype)).reshape(shape)

    return init


def variance_scaling(
    scale: float,
    fan: Literal["fan_in", "fan_out", "fan_avg"],
    distribution: Literal["normal", "uniform"],
) -> Initializer:
    """Numbers of mean 0 and variance scale / fan."""

    def init(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        field = math.prod(shape[:-2])
        fan_in, fan_out = field * shape[-2], field * shape[-1]
        fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
        numbers = _numbers(key, Draw(distribution, shape, jnp.dtype(dtype)))
        # Rounded to the weight's dtype in the order of `jax.nn.initializers`.
        variance = np.asarray(scale / fans[fan], numbers.dtype)
        if distribution == "normal":
            return (numbers * np.sqrt(variance)).reshape(shape)
        limit = np.sqrt(np.asarray(3, numbers.dtype) * variance)
        return ((numbers * 2 - 1) * limit).reshape(shape)

    return init


torch_default: Initializer = variance_scaling(1 / 3, "fan_in", "uniform")
"""U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what torch's Conv2d and Linear start with."""

kaiming_normal_fan_out: Initializer = variance_scaling(2.0, "fan_out", "normal")
"""N(0, 2 / fan_out), for layers before a ReLU (He 2015, https://arxiv.org/abs/1502.01852)."""

kaiming_normal_fan_in: Initializer = variance_scaling(2.0, "fan_in", "normal")
"""N(0, 2 / fan_in)."""

xavier_uniform: Initializer = variance_scaling(1.0, "fan_avg", "uniform")
"""U(-b, b), b = sqrt(6 / (fan_in + fan_out)) (https://proceedings.mlr.press/v9/glorot10a.html)."""


def _numbers(key: Key, draw: Draw) -> jax.Array:
    return key(draw) if callable(key) else draw(key)
