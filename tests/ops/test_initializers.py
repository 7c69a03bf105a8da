import jax
import numpy as np
import pytest
from jax import numpy as jnp

from flaxseg.ops import initializers as init

KEY = jax.random.key(3)
THEIRS = jax.nn.initializers


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (init.normal(0.02), THEIRS.normal(0.02)),
        (init.torch_default, THEIRS.variance_scaling(1 / 3, "fan_in", "uniform")),
        (init.xavier_uniform, THEIRS.variance_scaling(1.0, "fan_avg", "uniform")),
        (init.kaiming_normal_fan_in, THEIRS.variance_scaling(2.0, "fan_in", "normal")),
        (init.kaiming_normal_fan_out, THEIRS.variance_scaling(2.0, "fan_out", "normal")),
    ],
)
def test_values_are_those_of_jax(ours, theirs, dtype):
    """To the bit, up to JAX 0.10: later ones scale their numbers inside the program that draws."""
    units = 2 if jax.__version_info__ >= (0, 11) else 0
    for shape in [(3, 3, 5, 7), (5, 7)]:
        found, expected = ours(KEY, shape, dtype), theirs(KEY, shape, dtype)
        assert found.dtype == dtype
        wide = (np.asarray(values, np.float64) for values in (found, expected))
        np.testing.assert_allclose(*wide, rtol=units * float(jnp.finfo(dtype).eps))


def test_uniform_numbers_are_those_of_jax_up_to_rounding():
    found = init.uniform(0.1)(KEY, (1000,), jnp.float32)
    expected = jax.random.uniform(KEY, (1000,), jnp.float32, -0.1, 0.1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.1 * 2**-22)
