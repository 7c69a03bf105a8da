"""Scaled dot-product attention, one batched matrix product for all heads.

Vaswani et al. 2017, "Attention Is All You Need", https://arxiv.org/abs/1706.03762, equation 1.
"""

import functools

import jax
from jax import numpy as jnp

from flaxseg.ops.precision import current_precision
from flaxseg.ops.product import product


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, counts: jax.Array | None = None
) -> jax.Array:
    """softmax(query key^T / sqrt(d)) value, without dropout.

    Saves the probabilities and the result for the gradient, which then needs two sums less over
    (N, M) than the derivative of the formula. Softmax and sums are float32 or wider.

    Args:
        query: (B, h, N, d).
        key: (B, h, M, d).
        value: (B, h, M, d).
        counts: which keys do, (B, M); None: all. At least one of each sample does.

    Returns:
        (B, h, N, d) in value's dtype.
    """
    if counts is not None:
        return mix_values(attention_weights(query, key, counts=counts), value)
    return _attention(current_precision(), query, key, value)


def attention_weights(
    query: jax.Array,
    key: jax.Array,
    precision: str | None = None,
    counts: jax.Array | None = None,
) -> jax.Array:
    """softmax(query key^T / sqrt(d)), (B, h, N, M), float32 or wider."""
    # Scaling the query instead of the energies touches d instead of M values a token.
    energies = product("bhnd,bhmd->bhnm", query * _scale(query), key, precision)
    return jax.nn.softmax(energies, -1, where=None if counts is None else counts[:, None, None])


def mix_values(weights: jax.Array, value: jax.Array, precision: str | None = None) -> jax.Array:
    """weights value: (B, h, N, M) and (B, h, M, d) to (B, h, N, d), in value's dtype."""
    mixed = product("bhnm,bhmd->bhnd", weights.astype(value.dtype), value, precision)
    return mixed.astype(value.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(precision: str | None, query: jax.Array, key: jax.Array, value: jax.Array):
    return _forward(precision, query, key, value)[0]


def _forward(precision: str | None, query: jax.Array, key: jax.Array, value: jax.Array):
    weights = attention_weights(query, key, precision).astype(value.dtype)
    mixed = mix_values(weights, value, precision)
    return mixed, (query, key, value, weights, mixed)


def _backward(precision: str | None, saved: tuple[jax.Array, ...], gradient: jax.Array):
    query, key, value, weights, mixed = saved
    wide = jnp.promote_types(value.dtype, jnp.float32)
    of_value = product("bhnm,bhnd->bhmd", weights, gradient, precision)
    of_weights = product("bhnd,bhmd->bhnm", gradient, value, precision)
    # The softmax's derivative needs sum_m weights[n, m] * of_weights[n, m] = gradient[n] mixed[n].
    inner = jnp.sum(gradient.astype(wide) * mixed.astype(wide), -1, keepdims=True)
    of_energies = (weights * (of_weights - inner) * _scale(query)).astype(value.dtype)
    of_query = product("bhnm,bhmd->bhnd", of_energies, key, precision)
    of_key = product("bhnm,bhnd->bhmd", of_energies, query, precision)
    return of_query.astype(query.dtype), of_key.astype(key.dtype), of_value.astype(value.dtype)


_attention.defvjp(_forward, _backward)


def _scale(query: jax.Array) -> float:
    return query.shape[-1] ** -0.5
