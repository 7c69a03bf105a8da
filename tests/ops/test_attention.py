import jax
import numpy as np
import pytest
from comparison import assert_close, random
from jax import numpy as jnp

from flaxseg import ops

SHAPES = {"query": (2, 3, 5, 4), "key": (2, 3, 7, 4), "value": (2, 3, 7, 4)}


def inputs(dtype=None) -> list[jax.Array]:
    return [jnp.asarray(random(*s, seed=i), dtype) for i, s in enumerate(SHAPES.values())]


def by_definition(query, key, value):
    energies = jnp.einsum("bhnd,bhmd->bhnm", query, key) / np.sqrt(query.shape[-1])
    weights = jnp.exp(energies)
    weights = weights / weights.sum(-1, keepdims=True)
    return jnp.einsum("bhnm,bhmd->bhnd", weights, value)


@pytest.mark.usefixtures("x64")
def test_equals_the_definition():
    assert_close(ops.attention(*inputs()), by_definition(*inputs()))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("argument", [0, 1, 2])
def test_gradients_equal_the_definitions(argument):
    cotangent = jnp.asarray(random(*SHAPES["query"], seed=3))
    ours, theirs = (
        jax.vjp(function, *inputs())[1](cotangent)[argument]
        for function in (ops.attention, by_definition)
    )
    assert_close(ours, theirs)


@pytest.mark.usefixtures("x64")
def test_the_parts_make_the_whole():
    query, key, value = inputs()
    weights = ops.attention_weights(query, key)
    assert_close(weights.sum(-1), np.ones((2, 3, 5)))
    assert_close(ops.mix_values(weights, value), ops.attention(query, key, value))


def test_large_energies_stay_finite():
    query, key, value = inputs(jnp.float32)
    output, pullback = jax.vjp(ops.attention, 1e4 * query, 1e4 * key, value)
    assert all(np.isfinite(x).all() for x in (output, *pullback(output)))


def test_bfloat16_follows_float32():
    exact, pull_exact = jax.vjp(ops.attention, *inputs(jnp.float32))
    half, pull_half = jax.vjp(ops.attention, *inputs(jnp.bfloat16))
    assert ops.attention_weights(*inputs(jnp.bfloat16)[:2]).dtype == jnp.float32
    for a, b in zip((half, *pull_half(half)), (exact, *pull_exact(exact)), strict=True):
        assert a.dtype == jnp.bfloat16
        assert np.abs(a.astype(jnp.float32) - b).max() < 0.03 * np.abs(b).max()
