import jax
import numpy as np
from comparison import random
from jax import numpy as jnp

from flaxseg import ops

DEPTH, WIDTH = 8, 32


def layer(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eight steps, of which each keeps a value for its gradient; and a second output."""
    start = x
    for _ in range(8):
        x = jnp.sin(x @ weight)
    return start + x, x.sum()


def loss(weights: jax.Array, x: jax.Array, recompute: bool) -> jax.Array:
    total = jnp.zeros(())
    for weight in weights:
        x, extra = ops.recomputed(layer, x, weight) if recompute else layer(x, weight)
        total += extra
    return total + (x**2).sum()


def compiled(recompute: bool):
    weights = jnp.asarray(random(DEPTH, WIDTH, WIDTH, seed=1) / WIDTH, jnp.float32)
    x = jnp.asarray(random(512, WIDTH), jnp.float32)
    function = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)
    return function.lower(weights, x, recompute).compile(), (weights, x)


def test_saves_memory_for_the_same_gradient():
    kept, arguments = compiled(False)
    again, _ = compiled(True)
    before, after = (c.memory_analysis().temp_size_in_bytes for c in (kept, again))
    assert after < 0.4 * before
    for a, b in zip(again(*arguments), kept(*arguments), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(b).max())


def test_a_tpu_need_not_copy_the_gradient():
    """Its layout is that of a shape, so that another shape of a large array is a copy."""
    x, size = jnp.ones((2, 4, 6, 8)), 2 * 4 * 6 * 8
    traced = jax.jit(jax.grad(lambda x: ops.recomputed(lambda x: (x**3, None), x)[0].sum()))
    shapes = [
        equation.invars[0].aval.size
        for equation in traced.trace(x).jaxpr.eqns
        if equation.primitive.name == "reshape"
    ]
    assert size not in shapes


def test_captured_arrays_have_their_gradient():
    def run(captured: jax.Array, x: jax.Array) -> jax.Array:
        return ops.recomputed(lambda x: (jnp.sin(captured * x), None), x)[0].sum()

    captured, x = jnp.asarray(2.0), jnp.asarray([[0.5], [1.5]])
    expected = jax.grad(lambda c, x: jnp.sin(c * x).sum(), argnums=(0, 1))(captured, x)
    np.testing.assert_allclose(jax.grad(run)(captured, x), expected[0], rtol=1e-6)
    np.testing.assert_allclose(jax.grad(run, argnums=1)(captured, x), expected[1], rtol=1e-6)


def test_traces_the_function_once():
    calls = []

    def note(x: jax.Array) -> tuple[jax.Array, None]:
        calls.append(x)
        return x**2, None

    jax.jit(jax.grad(lambda x: ops.recomputed(note, x)[0].sum()))(jnp.ones((2, 3)))
    assert len(calls) == 1


def test_infinite_gradients_stay_what_they_are():
    def run(x: jax.Array) -> jax.Array:
        return ops.recomputed(lambda x: (jnp.exp(x), None), x)[0].sum()

    np.testing.assert_array_equal(
        jax.grad(run)(jnp.asarray([1e3, 0.0, np.nan])), [np.inf, 1, np.nan]
    )
