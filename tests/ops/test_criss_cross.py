import jax
import numpy as np
import pytest
from comparison import assert_close, random
from jax import numpy as jnp

from flaxseg import ops


def by_definition(query, key, value):
    """Every pixel's softmax over its row, itself included, and the rest of its column."""
    batch, height, width, _ = query.shape
    result = np.zeros_like(value)
    for b in range(batch):
        for h in range(height):
            for w in range(width):
                others = [i for i in range(height) if i != h]
                keys = np.concatenate([key[b, others, w], key[b, h]])
                values = np.concatenate([value[b, others, w], value[b, h]])
                energies = keys @ query[b, h, w]
                weights = np.exp(energies - energies.max())
                result[b, h, w] = weights @ values / weights.sum()
    return result


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", [(5, 7), (7, 4), (1, 6), (6, 1), (1, 1)])
def test_equals_the_definition(size):
    query, key = (2 * random(2, *size, 3, seed=i) for i in (0, 1))
    value = random(2, *size, 4, seed=2)
    ours = ops.criss_cross_attention(*map(jnp.asarray, (query, key, value)))
    assert_close(ours, by_definition(query, key, value))


def test_large_energies_stay_finite():
    query = jnp.full((1, 4, 4, 2), 1e4)
    value = jnp.asarray(random(1, 4, 4, 3), jnp.float32)
    grad = jax.grad(lambda v: ops.criss_cross_attention(query, -query, v).sum())(value)
    assert np.isfinite(ops.criss_cross_attention(query, query, value)).all()
    assert np.isfinite(grad).all()


def test_bfloat16_follows_float32():
    query, key, value = (jnp.asarray(random(1, 9, 8, 16, seed=i), jnp.float32) for i in range(3))
    exact = ops.criss_cross_attention(query, key, value)
    half = ops.criss_cross_attention(*(x.astype(jnp.bfloat16) for x in (query, key, value)))
    assert half.dtype == jnp.bfloat16
    assert np.abs(half.astype(jnp.float32) - exact).max() < 0.03 * np.abs(exact).max()


def test_never_makes_a_full_attention_matrix():
    side = 96
    x = jax.ShapeDtypeStruct((1, side, side, 8), jnp.float32)
    jaxpr = jax.make_jaxpr(ops.criss_cross_attention)(x, x, x)
    largest = max(np.prod(var.aval.shape) for eqn in jaxpr.jaxpr.eqns for var in eqn.outvars)
    assert largest <= side**3
