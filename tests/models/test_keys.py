import jax
import numpy as np
import pytest
from flax import nnx
from jax import numpy as jnp

from flaxseg.models import params_keys
from flaxseg.ops.initializers import Draw


def data(rngs):
    return [np.asarray(jax.random.key_data(rngs.params())) for _ in range(3)]


def test_the_keys_are_those_of_nnx():
    expected = data(nnx.Rngs(7))
    np.testing.assert_array_equal(data(params_keys(7)), expected)
    assert len({key.tobytes() for key in expected}) == 3


def test_they_can_be_drawn_while_a_function_is_traced():
    def keys():
        rngs = params_keys(7)
        return [jax.random.key_data(rngs.params()) for _ in range(3)]

    np.testing.assert_array_equal(jax.jit(keys)(), data(nnx.Rngs(7)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_a_longer_draw_begins_with_a_shorter_one(distribution, dtype):
    key = jax.random.key(5)
    long = Draw(distribution, (64,), jnp.dtype(dtype))(key)
    short = Draw(distribution, (3, 7), jnp.dtype(dtype))(key)
    np.testing.assert_array_equal(short.ravel(), long[:21])
