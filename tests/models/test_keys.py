import jax
import numpy as np
from flax import nnx

from flaxseg.models import params_keys


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
