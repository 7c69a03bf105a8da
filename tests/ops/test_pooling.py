import numpy as np
import pytest
import torch
from comparison import assert_same_map, random
from jax import numpy as jnp
from torch.nn import functional as F

from flaxseg import ops

pytestmark = pytest.mark.usefixtures("x64")

SIZES = [(7, 10), (8, 8), (5, 6), (9, 4)]
WINDOWS = [(3, 2, 1), (2, 2, 0), (3, 1, 1), (3, 3, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_max_pool_equals_torch(size, window, ceil_mode):
    assert_same_map(
        lambda x: ops.max_pool(x, *window, ceil_mode=ceil_mode),
        lambda x: F.max_pool2d(x, *window, ceil_mode=ceil_mode),
        random(2, *size, 3) - 5,  # all negative: a zero from the padding would win
    )


def test_max_pool_gradient_of_equal_values_goes_where_torch_puts_it():
    x = np.random.default_rng(0).integers(0, 2, (2, 9, 9, 3)).astype(float)
    assert_same_map(lambda x: ops.max_pool(x, 3, 2, 1), lambda x: F.max_pool2d(x, 3, 2, 1), x)


def test_max_pool_spreads_nan_as_torch_does():
    x = random(1, 8, 8, 1)
    x[0, 3, 3] = np.nan
    ours = np.asarray(ops.max_pool(jnp.asarray(x), 3, 2, 1))[0, ..., 0]
    theirs = F.max_pool2d(torch.from_numpy(x[None, 0, ..., 0]), 3, 2, 1)[0].numpy()
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", WINDOWS)
def test_avg_pool_equals_torch(size, window):
    assert_same_map(
        lambda x: ops.avg_pool(x, *window), lambda x: F.avg_pool2d(x, *window), random(2, *size, 3)
    )
