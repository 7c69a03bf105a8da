"""Scaled dot-product attention, one batched matrix product for all heads.

Vaswani et al. 2017, "Attention Is All You Need", https://arxiv.org/abs/1706.03762, equation 1.

NVIDIA GPUs take 16-bit attention through cuDNN, which never holds the probabilities: 2 to 6 times
as fast without a gradient, 1.2 times and more with it (docs/accelerators.md).
"""

import functools
from collections.abc import Callable

import jax
from jax import lax
from jax import numpy as jnp

from flaxseg.ops.precision import current_precision
from flaxseg.ops.product import product

AMPERE = 8.0
"""Compute capability of the first GPUs on which cuDNN has this attention."""


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    counts: jax.Array | None = None,
    dropout: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """softmax(query key^T / sqrt(d)) value.

    Saves the probabilities and the result for the gradient, which then needs two sums less over
    (N, M) than the derivative of the formula. Softmax and sums are float32 or wider.

    Args:
        query: (B, h, N, d).
        key: (B, h, M, d).
        value: (B, h, M, d).
        counts: which keys do, (B, M); None: all. At least one of each sample does.
        dropout: drops weights, (B, h, N, M).

    Returns:
        (B, h, N, d) in value's dtype.
    """
    if counts is not None or dropout is not None:
        weights = _weights(query, key, counts=counts)
        if dropout is not None:
            # Without an end of the fusion here libtpu 0.0.42 overflows its stack under remat: it
            # puts the products before and behind the softmax into one.
            weights = lax.optimization_barrier(dropout(weights).astype(value.dtype))
        return _mix(weights, value)
    own = functools.partial(_attention, current_precision())
    fused = _cudnn_form(query.shape, key.shape, value.dtype)
    if fused is None:
        return own(query, key, value)
    return lax.platform_dependent(query, key, value, cuda=fused, default=own)


def _weights(
    query: jax.Array,
    key: jax.Array,
    precision: str | None = None,
    counts: jax.Array | None = None,
) -> jax.Array:
    """softmax(query key^T / sqrt(d)), (B, h, N, M), float32 or wider."""
    # Scaling the query instead of the energies touches d instead of M values a token.
    energies = product("bhnd,bhmd->bhnm", query * _scale(query), key, precision)
    return jax.nn.softmax(energies, -1, where=None if counts is None else counts[:, None, None])


def _mix(weights: jax.Array, value: jax.Array, precision: str | None = None) -> jax.Array:
    """weights value: (B, h, N, M) and (B, h, M, d) to (B, h, N, d), in value's dtype."""
    mixed = product("bhnm,bhmd->bhnd", weights.astype(value.dtype), value, precision)
    return mixed.astype(value.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(precision: str | None, query: jax.Array, key: jax.Array, value: jax.Array):
    return _forward(precision, query, key, value)[0]


def _forward(precision: str | None, query: jax.Array, key: jax.Array, value: jax.Array):
    weights = _weights(query, key, precision).astype(value.dtype)
    mixed = _mix(weights, value, precision)
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


Attention = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@functools.lru_cache(maxsize=256)
def _cudnn_form(query: tuple[int, ...], key: tuple[int, ...], dtype: jnp.dtype) -> Attention | None:
    """How cuDNN takes arrays of these shapes, None: not at all.

    JAX asks the cuDNN at hand while it traces, so that a program for GPUs that is made on a machine
    without one has the formula instead.
    """
    if dtype not in (jnp.bfloat16, jnp.float16) or not _gpus_are_new_enough():
        return None
    q, kv = (jax.ShapeDtypeStruct(shape, dtype) for shape in (query, key))
    for form in (_cudnn, _cudnn_odd):
        try:
            jax.eval_shape(lambda q, k, v, form=form: jax.vjp(form, q, k, v)[1](q), q, kv, kv)
        except (NotImplementedError, RuntimeError):
            continue
        return form
    return None


def _gpus_are_new_enough() -> bool:
    """Whether there are NVIDIA GPUs here, all of them Ampere or later: cuDNN asks for that."""
    try:
        gpus = jax.local_devices(backend="cuda")
    except RuntimeError:
        return False
    return all(float(getattr(gpu, "compute_capability", 0)) >= AMPERE for gpu in gpus)


def _cudnn(query: jax.Array, key: jax.Array, value: jax.Array, **lengths: jax.Array) -> jax.Array:
    arrays = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    mixed = jax.nn.dot_product_attention(*arrays, **lengths, implementation="cudnn")
    return jnp.swapaxes(mixed, 1, 2)


@jax.custom_vjp
def _cudnn_odd(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """With even numbers of tokens where there is a gradient, which asks for that."""
    return _cudnn(query, key, value)


def _cudnn_even(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """With a token more where their number is odd, which does not count."""
    batch, _, tokens, _ = query.shape
    lengths = (jnp.full(batch, x.shape[2], jnp.int32) for x in (query, key))
    names = ("query_seq_lengths", "key_value_seq_lengths")
    mixed = _cudnn(*map(_even, (query, key, value)), **dict(zip(names, lengths, strict=True)))
    return mixed[:, :, :tokens]


_cudnn_odd.defvjp(functools.partial(jax.vjp, _cudnn_even), lambda pullback, g: pullback(g))


def _even(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (0, 0), (0, x.shape[2] % 2), (0, 0)))


def _scale(query: jax.Array) -> float:
    return query.shape[-1] ** -0.5
