import jax
import numpy as np
import pytest
import torch
from comparison import assert_same_map, nchw, nhwc, random
from jax import export
from jax import numpy as jnp
from torch.nn import functional as F

from flaxseg import ops
from flaxseg.ops import resize
from flaxseg.ops.resize import nearest_indices

pytestmark = pytest.mark.usefixtures("x64")

SIZES = [
    ((5, 7), (40, 56)),  # whole factor
    ((5, 7), (10, 21)),  # a whole factor for each side
    ((5, 7), (11, 13)),  # up
    ((12, 9), (5, 4)),  # down
    ((6, 9), (13, 4)),  # up and down
    ((1, 4), (6, 1)),  # single pixels
    ((5, 7), (5, 7)),  # nothing to do
    ((3, 5), (5, 5)),  # one side only
]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("size", "out"), SIZES)
def test_bilinear_equals_torch(size, out, align_corners):
    assert_same_map(
        lambda x: ops.resize_bilinear(x, out, align_corners=align_corners),
        lambda x: F.interpolate(x, out, mode="bilinear", align_corners=align_corners),
        random(2, *size, 3),
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(("axis", "factor"), [(1, 2), (2, 5)])
def test_what_accelerators_get_is_what_cpus_get(axis, factor, dtype):
    """In the dtype of the map, with 64 bits allowed, and so does the gradient."""
    x = jnp.asarray(random(2, 3, 4, 5), dtype)
    on_cpus, elsewhere = resize._at_once(x, axis, factor), resize._by_phase(x, axis, factor)
    np.testing.assert_array_equal(on_cpus, elsewhere)
    y, pullback = jax.vjp(lambda x: resize._enlarged(x, axis, factor), x)
    assert on_cpus.dtype == elsewhere.dtype == y.dtype == pullback(y)[0].dtype == dtype


@pytest.mark.parametrize(("size", "out"), SIZES)
def test_nearest_equals_torch(size, out):
    x = random(2, *size, 3)
    np.testing.assert_array_equal(
        ops.resize_nearest(jnp.asarray(x), out), nhwc(F.interpolate(nchw(x), out, mode="nearest"))
    )


def test_symbolic_sides_give_what_known_ones_do():
    def resize(x):
        size = 2 * x.shape[1] + 1, x.shape[2] + 3  # no whole factors, up and down
        corners = (ops.resize_bilinear(x, size, align_corners=c) for c in (False, True))
        small = ops.resize_bilinear(x, (3, 2 * x.shape[2]))
        return *corners, small, ops.resize_nearest(x, size)

    shape = jax.ShapeDtypeStruct(export.symbolic_shape("1, height, width, 2"), jnp.float64)
    program = jax.jit(export.export(jax.jit(resize))(shape).call)
    for size in ((3, 4), (7, 1)):
        x = random(1, *size, 2)
        for found, expected in zip(program(x), resize(jnp.asarray(x)), strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_nearest_picks_torch_indices_at_every_size():
    for n in (1, 3, 5, 7, 48, 49):
        row = torch.arange(n, dtype=torch.float64).reshape(1, 1, 1, n)
        for out in range(1, 130):
            theirs = F.interpolate(row, (1, out), mode="nearest").flatten().numpy()
            np.testing.assert_array_equal(nearest_indices(n, out), theirs)


def test_bilinear_stays_close_in_float32():
    x = random(1, 9, 11, 3).astype(np.float32)
    for out in ((36, 44), (25, 30)):
        ours = ops.resize_bilinear(jnp.asarray(x), out)
        theirs = F.interpolate(torch.from_numpy(np.moveaxis(x, -1, 1)), out, mode="bilinear")
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, nhwc(theirs), atol=1e-5)
