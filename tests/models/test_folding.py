"""Folded networks: the same function without a norm behind a convolution."""

import re

import jax
import numpy as np
import pytest
from flax import nnx
from jax import numpy as jnp

import flaxseg
from convert.parity.networks import COMPARISONS, small_config
from flaxseg import models, native, ops
from flaxseg.errors import CheckpointError, FlaxsegError
from flaxseg.inference.logits import image_logits
from flaxseg.labels import LabelSet
from flaxseg.models.blocks import ConvBN
from flaxseg.models.folding import Shift
from flaxseg.preprocess import Preprocess

NETWORKS = {
    "bisenetv2": {
        "backbone.detail_layers": (1, 1, 1),
        "backbone.semantic_layers": (1, 1, 2),
        "aux_channels": (),
        "aux_weights": (),
    },
    "bisenetv2_mmseg": {
        "backbone.detail_layers": (1, 1, 1),
        "backbone.semantic_layers": (1, 1, 2),
        "aux_channels": (),
        "aux_weights": (),
    },
    "ccnet_r101_original": {"backbone.blocks": (1, 1, 1, 1)},
    "segformer_b0_mmseg": {"backbone.depths": (1, 1, 1, 1)},
}
"""Between them they have every kind of pair, and a norm behind no convolution."""

LONE_NORMS = {"bisenetv2_mmseg": 1}
"""Norms behind no convolution."""


def random_array(key, shape):
    """Gains of both signs, and zeros among them."""
    rng = np.random.default_rng(list(key.encode()))
    if key.endswith("running_var"):
        return rng.uniform(0.1, 3, shape)
    noise = rng.standard_normal(shape)
    if len(shape) > 1:
        return noise * np.sqrt(1.5 / np.prod(shape[1:]))
    return np.where(rng.random(shape) < 0.1, 0, noise) if key.endswith("weight") else noise


def random_model(config, dtype=jnp.float32):
    model = models.abstract_model(config, dtype=dtype, param_dtype=dtype)
    shapes = native.leaves(model)
    return native.fill(model, {key: random_array(key, shape) for key, shape in shapes.items()})


def count(module, kind):
    return sum(isinstance(part, kind) for _, part in nnx.iter_modules(module))


def on_maps(operation, traced):
    """How often a traced function does this with the whole maps of two images, (2, H, W, C)."""
    return len(re.findall(rf":\w+\[2,\d+,\d+,\d+\] = {operation}\b", str(traced.jaxpr)))


@pytest.fixture(scope="module")
def tiny():
    config = models.override(small_config("ccnet"), {"backbone.blocks": (1, 1, 1, 1)})
    return random_model(config)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.usefixtures("x64")
def test_the_same_logits_without_the_arithmetic_of_norms(name):
    model = random_model(models.override(small_config(name), NETWORKS[name]), jnp.float64)
    pairs = count(model, ops.BatchNorm) - LONE_NORMS.get(name, 0)
    graphdef, state = nnx.split(models.train_view(model))
    images = np.random.default_rng(0).standard_normal((2, *COMPARISONS[name].sizes[0], 3))

    def run(inference):
        def network(state, images):
            return inference(nnx.merge(graphdef, state))(images, aux=True)

        traced = jax.jit(network).trace(state, images)
        return traced, jax.tree.leaves(traced.lower().compile()(state, images))

    (plain, expected), (folded, found) = run(models.eval_view), run(flaxseg.fold)
    for a, b in zip(expected, found, strict=True):
        assert a.std() > 0.01
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-10 * abs(a).max())
    for operation in ("sub", "mul"):
        assert on_maps(operation, plain) - on_maps(operation, folded) == pairs > 0


def test_predictions_and_evaluations_are_of_the_folded_network(tiny):
    labels, preprocess = LabelSet.generic(5), Preprocess()
    folded = flaxseg.fold(tiny)
    assert (count(folded, Shift), count(folded, ops.BatchNorm)) == (count(tiny, ops.BatchNorm), 0)
    images = jnp.zeros((2, 32, 32, 3))
    once = jax.jit(lambda x: folded(preprocess(x))).trace(images)
    assert "rsqrt" not in str(once.jaxpr)
    seen = jax.jit(lambda x: image_logits(tiny, labels, preprocess, x)).trace(images)
    assert on_maps("sub", seen) == on_maps("sub", once)


def test_the_model_and_its_copy_go_separate_ways(tiny):
    tiny = nnx.clone(tiny)
    before = native.state_dict(tiny)
    folded = flaxseg.fold(tiny)
    kept = jax.tree.map(np.asarray, nnx.state(folded))
    assert not any(
        part.use_running_average
        for _, part in nnx.iter_modules(tiny)
        if isinstance(part, ops.BatchNorm)
    )
    for key, array in native.state_dict(tiny).items():
        np.testing.assert_array_equal(array, before[key])
    native.fill(tiny, {key: array + 1 for key, array in before.items()})
    jax.tree.map(np.testing.assert_array_equal, nnx.state(folded), kept)
    again = nnx.state(flaxseg.fold(folded))
    jax.tree.map(np.testing.assert_array_equal, again, kept)


def test_a_folded_network_is_neither_trained_nor_saved(tiny, tmp_path):
    folded = flaxseg.fold(tiny)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    with pytest.raises(FlaxsegError, match=r"cannot be trained.* given to flaxseg\.fold"):
        nnx.eval_shape(lambda x: models.train_view(folded)(x), images)
    native.save(tiny, tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"\.bn.*\.shift is of a folded network.*fold$"):
        native.save(folded, tmp_path / "model")
    assert native.leaves(native.load(tmp_path / "model")) == native.leaves(tiny)


class Shared(nnx.Module):
    """One convolution before two norms, and by itself."""

    norm_pairs = (("conv", "first"), ("conv", "second"))

    def __init__(self):
        self.conv = ops.Conv(3, 4, 3, padding=1, rngs=nnx.Rngs(0))
        self.first, self.second = (ops.BatchNorm(4) for _ in range(2))

    def __call__(self, x):
        return self.first(self.conv(x)), self.second(self.conv(x))


def test_a_convolution_before_two_norms_is_refused():
    with pytest.raises(
        FlaxsegError, match=r"Shared\.norm_pairs is .*: a convolution folds with one"
    ):
        flaxseg.fold(Shared())


def test_others_that_hold_a_folded_convolution_keep_theirs():
    layer = ConvBN(3, 4, 3, rngs=nnx.Rngs(0))
    layer.bn.weight[...] *= 2
    both = nnx.List([layer, layer.conv])
    weight = layer.conv.weight[...]
    folded = flaxseg.fold(both)
    assert abs(folded[0].conv.weight[...] - weight).max() > 0.01
    np.testing.assert_array_equal(folded[1].weight[...], weight)


def test_bfloat16_rounds_products_but_not_shifts():
    layer = ConvBN(8, 16, 3, bias=True, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    for i, leaf in enumerate((layer.bn.weight, layer.bn.bias, layer.conv.bias)):
        leaf[...] = jax.random.normal(jax.random.key(i), (16,))
    folded = flaxseg.fold(layer)
    assert folded.conv.weight.dtype == folded.bn.shift.dtype == jnp.float32
    x = jax.random.normal(jax.random.key(3), (2, 9, 9, 8))
    plain = models.eval_view(layer)(x)
    assert folded(x).dtype == plain.dtype == jnp.bfloat16
    difference = abs(folded(x).astype(float) - plain.astype(float))
    assert 0 < difference.max() < 2**-7 * plain.max()
