"""Criss-cross attention: every pixel attends to its own column and row.

Huang et al. 2019, "CCNet: Criss-Cross Attention for Semantic Segmentation",
https://arxiv.org/abs/1811.11721. Costs H + W keys per pixel instead of H * W; no (H*W, H*W)
matrix is ever made.
"""

import jax
from jax import lax
from jax import numpy as jnp

from flaxseg.ops import canvas
from flaxseg.ops.product import product


def criss_cross_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Attends along columns and rows with one softmax over both.

    The pixel itself stands in its column and in its row; it is masked in the column, so that it
    counts once. Energies are not scaled. Softmax and sums are float32 or wider.

    Args:
        query: (B, H, W, D).
        key: (B, H, W, D).
        value: (B, H, W, C).

    Returns:
        The attended values, (B, H, W, C), in value's dtype.
    """
    # Columns are the rows of the transposed map: both parts are then plain batched products.
    query_t, key_t, value_t = _transpose(query), _transpose(key), _transpose(value)
    row = product("bhwd,bhvd->bhwv", query, key)  # (B, H, W, W)
    column = _mask_self(product("bhwd,bhvd->bhwv", query_t, key_t))  # (B, W, H, H)

    if reach := canvas.reaches((row.shape[1], row.shape[2])):
        column, row = (_mask_beyond(*each) for each in zip((column, row), reach, strict=True))

    # One softmax without concatenating the parts: shared maximum, sum of both denominators.
    peak = lax.stop_gradient(jnp.maximum(row.max(-1), _transpose(column.max(-1))))
    row = jnp.exp(row - peak[..., None])
    column = jnp.exp(column - _transpose(peak)[..., None])
    total = row.sum(-1) + _transpose(column.sum(-1))
    mixed = _mix(row, value) + _transpose(_mix(column, value_t))
    return (mixed / total[..., None]).astype(value.dtype)


def _transpose(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, 1, 2)


def _mix(weights: jax.Array, value: jax.Array) -> jax.Array:
    return product("bhwv,bhvc->bhwc", weights.astype(value.dtype), value)


def _mask_self(column: jax.Array) -> jax.Array:
    return _without(jnp.eye(column.shape[-1], dtype=bool), column)


def _mask_beyond(energies: jax.Array, reach: jax.Array) -> jax.Array:
    """Energies (B, ..., keys) without the keys that lie beyond the pictures."""
    return _without(~canvas.inside(energies.shape[-1], reach)[:, None, None], energies)


def _without(masked: jax.Array, energies: jax.Array) -> jax.Array:
    """Finite, since -inf minus -inf is NaN; half the lowest value still underflows to weight 0."""
    return jnp.where(masked, jnp.finfo(energies.dtype).min / 2, energies)
