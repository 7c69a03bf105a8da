import jax
import numpy as np
import pytest
from flax import nnx
from jax import numpy as jnp

from flaxseg import models, ops
from flaxseg.errors import FlaxsegError

X = jnp.ones((64, 5, 7, 32))


def rngs(seed: int = 0) -> nnx.Rngs:
    return nnx.Rngs(dropout=jax.random.key(seed))


@pytest.mark.parametrize(
    ("layer", "axes"),
    [(ops.Dropout, ()), (ops.Dropout2d, (1, 2)), (ops.DropPath, (1, 2, 3))],
)
def test_drops_its_unit_whole_and_rescales(layer, axes):
    y = np.asarray(layer(0.25)(X, rngs()))
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    if axes:
        assert np.ptp(y, axis=axes).max() == 0
    units = y.mean(axes) if axes else y
    share = (units == 0).mean()
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / units.size)


def test_the_key_decides():
    layer = ops.Dropout(0.5)
    np.testing.assert_array_equal(layer(X, rngs(1)), layer(X, rngs(1)))
    assert not np.array_equal(layer(X, rngs(1)), layer(X, rngs(2)))


def test_does_nothing_in_evaluation_or_at_rate_zero():
    assert models.eval_view(ops.Dropout(0.5))(X) is X
    assert ops.Dropout(0.0)(X) is X


def test_holds_no_state():
    assert not jax.tree.leaves(nnx.state(ops.Dropout2d(0.5)))


def test_asks_for_keys():
    with pytest.raises(FlaxsegError, match=r"Dropout2d\(rate=0.5\) .*rngs=nnx.Rngs"):
        ops.Dropout2d(0.5)(X)
