"""In which precision float32 is multiplied, and where that is decided."""

import re

import jax
import numpy as np
import pytest
from flax import nnx
from jax import numpy as jnp

import flaxseg
from convert.parity.networks import small_config
from flaxseg import models, native, ops
from flaxseg.errors import ConfigError
from flaxseg.ops.product import product
from flaxseg.training import TrainConfig
from flaxseg.training.told import _rounding

IMAGES = jnp.zeros((1, 32, 32, 3))


def precisions(function, *args):
    return set(re.findall(r"Precision\.(\w+)", str(jax.make_jaxpr(function)(*args))))


@pytest.fixture(scope="module")
def network():
    return models.eval_view(models.build(small_config("ccnet"), rngs=nnx.Rngs(0)))


def test_a_network_is_exact_whatever_jax_is_set_to(network):
    with jax.default_matmul_precision("bfloat16"):
        assert precisions(lambda x: network(x, resize=False).logits, IMAGES) == {"HIGHEST"}


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_a_view_multiplies_in_its_own_precision(network, precision):
    fast = models.with_precision(network, precision)
    assert precisions(lambda x: fast(x, resize=False).logits, IMAGES) == {precision.upper()}
    assert precisions(lambda x: network(x, resize=False).logits, IMAGES) == {"HIGHEST"}


@pytest.mark.parametrize("precision", ["default", "highest"])
def test_a_saved_network_is_loaded_with_it(network, precision, tmp_path):
    flaxseg.save(network, tmp_path / "model")
    model = flaxseg.load(tmp_path / "model", matmul_precision=precision)
    assert precisions(lambda x: model(x, resize=False).logits, IMAGES) == {precision.upper()}
    assert native.load(tmp_path / "model").matmul_precision == "highest"


def test_a_precision_that_jax_does_not_know(network):
    with pytest.raises(ConfigError, match="matmul_precision is 'exact', expected one of .*highest"):
        models.with_precision(network, "exact")


@pytest.mark.parametrize("corners", [True, False])
def test_interpolation_is_exact_whatever_holds_around_it(corners):
    def enlarge(x):
        return ops.resize_bilinear(x, (7, 9), align_corners=corners).sum()

    with jax.default_matmul_precision("default"):
        for x in (jnp.ones((1, 4, 5, 2)), jnp.ones((1, 4, 5, 2), jnp.bfloat16)):
            assert precisions(jax.value_and_grad(enlarge), x) == {"HIGHEST"}


def test_bfloat16_maps_are_interpolated_with_whole_weights():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 5, 4, 3)), jnp.bfloat16)
    exact = ops.resize_bilinear(x.astype(jnp.float32), (33, 47), align_corners=True)
    ours = ops.resize_bilinear(x, (33, 47), align_corners=True)
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_array_equal(ours, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_of_products_are_multiplied_in_their_dtype(dtype):
    a, b = jnp.ones((2, 3, 4), dtype), jnp.ones((2, 5, 4), dtype)

    def loss(a, b):
        return jnp.square(product("bnd,bmd->bnm", a, b, "highest")).sum()

    text = jax.jit(jax.grad(loss, (0, 1))).lower(a, b).as_text()
    operands = re.findall(r"stablehlo.dot_general.* : \((.*)\) ->", text)
    name = "bf16" if dtype == jnp.bfloat16 else "f32"
    assert len(operands) == 3
    assert all(f"x{name}>" in a and f"x{name}>" in b for a, b in (o.split(", ") for o in operands))


@pytest.mark.usefixtures("x64")
def test_a_product_and_its_gradients_are_those_of_einsum():
    rng = np.random.default_rng(0)
    a, b = jnp.asarray(rng.standard_normal((2, 3, 4))), jnp.asarray(rng.standard_normal((2, 5, 4)))

    def through(multiply):
        return jax.value_and_grad(
            lambda a, b: jnp.sin(multiply("bnd,bmd->bnm", a, b)).sum(), (0, 1)
        )(a, b)

    for ours, theirs in zip(
        *map(jax.tree.leaves, map(through, (product, jnp.einsum))), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_the_precision_outlives_its_context():
    """A jitted network is differentiated outside of it."""

    class Attends(models.blocks.Network):
        @ops.in_own_precision
        def __call__(self, x):
            return ops.attention(x, x, x)

    run = jax.jit(models.with_precision(Attends(), "high").__call__)
    gradient = jax.grad(lambda x: run(x).sum())
    assert precisions(gradient, jnp.ones((1, 2, 3, 4))) == {"HIGH"}


@pytest.mark.parametrize(
    ("platform", "dtype", "precision", "word"),
    [
        ("gpu", "float32", "default", "TF32"),
        ("tpu", "float32", "default", "bfloat16,"),
        ("tpu", "float32", "high", "three"),
        ("tpu", "float32", "highest", None),
        ("gpu", "bfloat16", "default", None),
        ("cpu", "float32", "default", None),
    ],
)
def test_a_run_says_what_its_steps_round(platform, dtype, precision, word):
    lines = _rounding(TrainConfig(dtype=dtype, matmul_precision=precision), platform)
    assert len(lines) == (word is not None)
    assert all(word in line and "--matmul-precision highest" in line for line in lines)
