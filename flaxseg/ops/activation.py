"""Activations in their exact forms."""

import math

import jax
from jax import lax

from flaxseg.ops.recompute import late


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution's CDF at x (https://arxiv.org/abs/1606.08415).

    Written with erf, the form torch defaults to: `jax.nn.gelu` defaults to the tanh
    approximation, 5e-4 away, and its exact form goes through the slower erfc.
    """
    return _gelu(x)


def _gelu(x: jax.Array) -> jax.Array:
    return 0.5 * x * (1 + lax.erf(x * math.sqrt(0.5)))


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _gelu(x), x


def _backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    # Left to JAX, erf and its derivative are made on the way forward and kept.
    return jax.vjp(_gelu, late(gradient, x))[1](gradient)


gelu.defvjp(_forward, _backward)
