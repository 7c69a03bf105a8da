"""Scaled dot-product attention, one batched matrix product for all heads.

Vaswani et al. 2017, "Attention Is All You Need", https://arxiv.org/abs/1706.03762, equation 1.
"""

import jax
from jax import lax
from jax import numpy as jnp

BATCH_AND_HEAD = ((0, 1), (0, 1))


@jax.custom_vjp
def attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """softmax(query key^T / sqrt(d)) value, without dropout.

    Saves the probabilities and the result for the gradient, which then needs two sums less over
    (N, M) than the derivative of the formula. Softmax and sums are float32 or wider.

    Args:
        query: (B, h, N, d).
        key: (B, h, M, d).
        value: (B, h, M, d).

    Returns:
        (B, h, N, d) in value's dtype.
    """
    return _forward(query, key, value)[0]


def attention_weights(query: jax.Array, key: jax.Array) -> jax.Array:
    """softmax(query key^T / sqrt(d)), (B, h, N, M), float32 or wider."""
    wide = jnp.promote_types(query.dtype, jnp.float32)
    # Scaling the query instead of the energies touches d instead of M values a token.
    energies = _product(query * _scale(query), key, 3, 3, wide)
    return jax.nn.softmax(energies, -1)


def mix_values(weights: jax.Array, value: jax.Array) -> jax.Array:
    """weights value: (B, h, N, M) and (B, h, M, d) to (B, h, N, d), in value's dtype."""
    wide = jnp.promote_types(value.dtype, jnp.float32)
    return _product(weights.astype(value.dtype), value, 3, 2, wide).astype(value.dtype)


def _forward(query: jax.Array, key: jax.Array, value: jax.Array):
    weights = attention_weights(query, key).astype(value.dtype)
    mixed = mix_values(weights, value)
    return mixed, (query, key, value, weights, mixed)


def _backward(saved: tuple[jax.Array, ...], gradient: jax.Array):
    query, key, value, weights, mixed = saved
    wide = jnp.promote_types(value.dtype, jnp.float32)
    of_value = _product(weights, gradient, 2, 2, wide)
    of_weights = _product(gradient, value, 3, 3, wide)
    # The softmax's derivative needs sum_m weights[n, m] * of_weights[n, m] = gradient[n] mixed[n].
    inner = jnp.sum(gradient.astype(wide) * mixed.astype(wide), -1, keepdims=True)
    of_energies = (weights * (of_weights - inner) * _scale(query)).astype(value.dtype)
    of_query = _product(of_energies, key, 3, 2, wide)
    of_key = _product(of_energies, query, 2, 2, wide)
    return of_query.astype(query.dtype), of_key.astype(key.dtype), of_value.astype(value.dtype)


attention.defvjp(_forward, _backward)


def _product(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int, dtype: jnp.dtype) -> jax.Array:
    """Sum over one axis of each, for every sample and head; a's free axis comes first."""
    axes = (((axis_a,), (axis_b,)), BATCH_AND_HEAD)
    return lax.dot_general(a, b, axes, preferred_element_type=dtype)


def _scale(query: jax.Array) -> float:
    return query.shape[-1] ** -0.5
