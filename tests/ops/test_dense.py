import functools

import jax
import pytest
from comparison import assert_close, random
from jax import numpy as jnp

from flaxseg.ops import dense
from flaxseg.ops.forms import Form
from flaxseg.ops.window import Window

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("outputs", [5, 2])
@pytest.mark.parametrize("pixels", [1, 40, 10_000])
@pytest.mark.parametrize(
    "window", [(1, 1, 1), (1, 0, 1), (2, 1, 1), (1, 4, 2), (1, 5, 2), (3, 0, 1), (2, 3, 2)]
)
def test_patches_give_the_gradient_of_the_weight(monkeypatch, window, pixels, outputs):
    """Row by row, of a few rows with some to spare, and of all at once.

    Of fewer outputs than channels these are gathered, unless the padding is wider than the kernel
    reaches or the kernel moves by strides.
    """
    monkeypatch.setattr(dense, "LEAST", pixels)
    monkeypatch.setattr(dense, "PATCHES", 0)
    monkeypatch.setattr(dense, "FEW", 0)
    x, weight = jnp.asarray(random(2, 11, 13, 4)), jnp.asarray(random(3, 3, 4, outputs, seed=1))
    forms = dense._forms(Window(*window), None, 4)
    cotangent = jnp.asarray(random(*forms["default"].forward(x, weight).shape, seed=2))
    found = (forms[name].gradients(x, weight, cotangent) for name in ("cpu", "default"))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, bound=1e-13)
    stride, padding, dilation = window
    swapped = outputs == 2 and stride == 1 and padding <= 2 * dilation
    made = str(jax.make_jaxpr(forms["cpu"].gradients)(x, weight, cotangent))
    assert ("f64[4,18]" if swapped else f"f64[{outputs},36]") in made


@pytest.mark.parametrize("outputs", [5, 1])
@pytest.mark.parametrize("window", [(1, 1, 1), (2, 1, 1), (1, 4, 2), (3, 0, 1), (2, 3, 2)])
def test_taps_give_the_gradient_of_the_weight(monkeypatch, window, outputs):
    """With the outputs turned, and with the map turned, where it has many channels for them."""
    monkeypatch.setattr(dense, "MANY", 0)
    x, weight = jnp.asarray(random(2, 11, 13, 4)), jnp.asarray(random(3, 3, 4, outputs, seed=1))
    forms = dense._forms(Window(*window), None, 4)
    cotangent = jnp.asarray(random(*forms["default"].forward(x, weight).shape, seed=2))
    ours, theirs = (forms[name].gradients(x, weight, cotangent)[1] for name in ("cpu", "default"))
    assert_close(ours, theirs, bound=1e-13)
    made = jax.make_jaxpr(forms["cpu"].gradients)(x, weight, cotangent)
    assert ("f64[9,4,1]" if outputs == 1 else "f64[9,5,4]") in str(made)


@pytest.mark.parametrize("cached", [True, False])
def test_maps_that_no_cache_holds_are_gathered_in_parts(monkeypatch, cached):
    x, weight, cotangent = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 4, 5)), jnp.zeros((1, 8, 8, 5))
    monkeypatch.setattr(dense, "MANY", 0)
    monkeypatch.setattr(dense, "CACHED", x.size if cached else x.size - 1)
    gradients = dense._forms(Window(1, 1), None, 4)["cpu"].gradients
    made = str(jax.make_jaxpr(gradients)(x, weight, cotangent))
    assert ("f64[9,5,4]" in made, "f64[5,36]" in made) == (cached, not cached)


@pytest.mark.parametrize("size", [(4, 7), (9, 10)])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_winograd_is_the_same_convolution(monkeypatch, padding, size):
    monkeypatch.setattr(dense, "WIDE", 0)
    x, weight = jnp.asarray(random(2, *size, 4)), jnp.asarray(random(3, 3, 4, 5, seed=1))
    window = Window(1, padding)
    forms = dense._forms(window, None, 4)
    cotangent = jnp.asarray(random(*forms["default"].forward(x, weight).shape, seed=2))

    def run(form: Form):
        return form.forward(x, weight), *form.gradients(x, weight, cotangent)

    for back in (False, True):
        function = forms["cpu"].gradients if back else forms["cpu"].forward
        given = (x, weight, cotangent) if back else (x, weight)
        # 16 for the map, and one for the gradient of the weight.
        assert str(jax.make_jaxpr(function)(*given)).count("dot_general") == 16 + back
    for ours, theirs in zip(run(forms["cpu"]), run(forms["default"]), strict=True):
        assert_close(ours, theirs, bound=1e-13)


@pytest.mark.parametrize("size", [(16, 24), (17, 13), (31, 30)])
@pytest.mark.parametrize(("k", "stride", "padding"), [(7, 4, 3), (3, 2, 1), (7, 2, 3), (2, 3, 0)])
def test_blocks_are_the_same_convolution(size, k, stride, padding):
    """A program of a TPU cannot be run here, but its form can."""
    x, weight = jnp.asarray(random(2, *size, 3)), jnp.asarray(random(k, k, 3, 5, seed=1))
    window = Window(stride, padding)

    @functools.partial(jax.jit, static_argnums=0)
    def run(function):
        y, pullback = jax.vjp(functools.partial(function, window, None), x, weight)
        return y, *pullback(jnp.sin(jnp.arange(y.size)).reshape(y.shape))

    for ours, theirs in zip(run(dense._in_blocks), run(dense._plain), strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("size", [(8, 12), (9, 13), (5, 8)])
@pytest.mark.parametrize(("padding", "dilation"), [(2, 2), (4, 4), (0, 2), (1, 3)])
def test_gradients_on_grids_are_those_of_the_dilated_kernel(size, padding, dilation):
    """A program of a GPU cannot be run here, but its form can."""
    if min(size) + 2 * padding <= 2 * dilation:
        size = (size[0] + 2 * dilation, size[1])
    x, weight = jnp.asarray(random(2, *size, 4)), jnp.asarray(random(3, 3, 4, 5, seed=1))
    forms = dense._forms(Window(1, padding, dilation), None, 4)
    cotangent = jnp.asarray(random(*forms["default"].forward(x, weight).shape, seed=2))
    found = (forms[name].gradients(x, weight, cotangent) for name in ("cuda", "default"))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, bound=1e-13)


def test_a_form_has_the_gradients_of_its_function():
    x, weight = jnp.asarray(random(1, 4, 4, 2)), jnp.asarray(random(3, 3, 2, 2, seed=1))
    function = functools.partial(dense._plain, Window(2, 1), None)
    y, pullback = jax.vjp(function, x, weight)
    for ours, theirs in zip(Form.of(function).gradients(x, weight, y), pullback(y), strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_only_programs_for_cpus_convolve_three_channels(platform):
    x, weight = jnp.zeros((1, 16, 16, 3)), jnp.zeros((7, 7, 3, 32))

    def loss(weight):
        return jnp.square(dense.dense_conv(x, weight, Window(4, 3))).sum()

    text = jax.jit(jax.grad(loss)).trace(weight).lower(lowering_platforms=(platform,)).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    # Forward and the gradient of the weight; on a CPU the latter is a product.
    assert len(lines) == (1 if platform == "cpu" else 2)
    assert any("16x16x3x" in line for line in lines) == (platform == "cpu")


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_no_gradient_of_a_gpu_program_has_a_kernel_as_large_as_the_map(platform):
    x, weight = jnp.zeros((1, 16, 24, 4)), jnp.zeros((3, 3, 4, 4))

    def loss(weight):
        return jnp.square(dense.dense_conv(x, weight, Window(1, 2, 2))).sum()

    text = jax.jit(jax.grad(loss)).trace(weight).lower(lowering_platforms=(platform,)).as_text()
    assert "convolution" in text
    # XLA's own gradient of a dilated kernel moves with a stride over the map.
    assert not any("stride = [2, 2]" in line for line in text.splitlines())


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_only_programs_for_cpus_multiply_pixels_in_a_row(platform):
    x, weight = jnp.zeros((1, 6, 5, 4)), jnp.zeros((4, 3))
    text = (
        jax.jit(dense.pointwise_conv)
        .trace(x, weight)
        .lower(lowering_platforms=(platform,))
        .as_text()
    )
    assert ("tensor<30x4x" in text) == (platform == "cpu")


def test_both_forms_multiply_every_pixel():
    x, weight = jnp.asarray(random(2, 6, 5, 4)), jnp.asarray(random(4, 3, seed=1))
    y, back = jax.vjp(dense.pointwise_conv, x, weight)
    expected, other = jax.vjp(lambda x, w: jnp.einsum("bhwc,cd->bhwd", x, w), x, weight)
    assert_close(y, expected, bound=1e-13)
    assert_close(dense._of_maps(None, x, weight), expected, bound=1e-13)
    for ours, theirs in zip(back(jnp.sin(y)), other(jnp.sin(y)), strict=True):
        assert_close(ours, theirs, bound=1e-13)
