import functools

import jax
import numpy as np
import pytest
from flax import nnx
from jax import numpy as jnp

from convert.parity.runs import COMPILER_OPTIONS, random_state
from flaxseg import models, native

SMALL = {"backbone.width": 8, "backbone.blocks": (1, 2, 1, 1), "channels": 16}


def small(name: str, dtype=jnp.float32) -> models.CCNet:
    config = models.get_config(name, num_classes=5, **SMALL)
    return native.fill(models.abstract_model(config, dtype=dtype), random_state(config, 0))


def shapes(name: str, height: int, width: int, overrides=None, **options) -> models.Output:
    """Shapes of a network's output, full-size without overrides; nothing is computed."""
    images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    model = models.abstract_model(models.get_config(name, **(overrides or {})))
    graphdef, state = nnx.split(models.eval_view(model))
    return jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x, **options), state, images)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (33, 120)])
def test_ccnet_returns_eight_times_its_map(height, width):
    rows, cols = -(-height // 8), -(-width // 8)
    assert shapes("ccnet", height, width).logits.shape == (2, 8 * rows, 8 * cols, 19)
    assert shapes("ccnet", height, width, resize=False).logits.shape == (2, rows, cols, 19)


@pytest.mark.parametrize("name", ["ccnet_r50", "ccnet_r101"])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97)])
def test_published_variants_return_the_image_size(name, height, width):
    output = shapes(name, height, width, aux=True)
    assert output.logits.shape == (2, height, width, 19)
    assert [x.shape for x in output.aux] == [(2, height, width, 19)]
    raw = shapes(name, height, width, aux=True, resize=False)
    assert raw.logits.shape == raw.aux[0].shape == (2, -(-height // 8), -(-width // 8), 19)


@pytest.mark.parametrize(
    ("size", "raw"), [((64, 96), (9, 13)), ((65, 96), (9, 13)), ((62, 90), (8, 12))]
)
def test_pooling_that_rounds_up_gives_larger_maps(size, raw):
    output = shapes("ccnet_r101_original", *size, aux=True, overrides=SMALL)
    assert output.logits.shape == output.aux[0].shape == (2, *size, 19)
    output = shapes("ccnet_r101_original", *size, aux=True, resize=False, overrides=SMALL)
    assert output.logits.shape == output.aux[0].shape == (2, *raw, 19)
    below = tuple(-(-side // 8) for side in size)
    output = shapes("ccnet_r101", *size, resize=False, overrides=SMALL)
    assert output.logits.shape[1:3] == below


def test_aux_is_empty_unless_asked_for():
    assert shapes("ccnet_r50", 64, 64).aux == ()
    assert shapes("ccnet", 64, 64, aux=True).aux == ()


def test_output_stride():
    assert {models.get_config(name).output_stride for name in models.list_models("ccnet*")} == {8}


def test_an_attention_that_counts_nothing_is_the_identity():
    attention = small("ccnet").head.cca
    attention.gamma[...] = jnp.zeros((1,))
    x = jax.random.normal(jax.random.key(0), (1, 5, 6, 16))
    np.testing.assert_array_equal(jax.jit(attention)(x), x)


@functools.cache
def evaluate(dtype) -> tuple[models.Output, list, list]:
    """The output in eval mode, and the running statistics before and after."""
    graphdef, state = nnx.split(models.eval_view(small("ccnet_r50", dtype)))

    def run(state, images):
        model = nnx.merge(graphdef, state)
        return model(images, aux=True), nnx.state(model, nnx.BatchStat)

    images = jax.random.normal(jax.random.key(0), (1, 33, 40, 3))
    output, after = jax.jit(run, compiler_options=COMPILER_OPTIONS["float64"])(state, images)
    before = nnx.state(nnx.merge(graphdef, state), nnx.BatchStat)
    return output, jax.tree.leaves(before), jax.tree.leaves(after)


def test_evaluation_keeps_the_statistics():
    _, before, after = evaluate(jnp.float32)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_bfloat16_computes_half_and_keeps_float32():
    model = models.eval_view(small("ccnet_r50", dtype=jnp.bfloat16))
    images = jax.ShapeDtypeStruct((1, 33, 40, 3), jnp.float32)
    assert jax.eval_shape(model.backbone, images)[-1].dtype == jnp.bfloat16
    output = evaluate(jnp.bfloat16)[0]
    assert output.logits.dtype == output.aux[0].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype(jnp.float32)}
    exact = evaluate(jnp.float32)[0].logits
    assert 0 < np.abs(output.logits - exact).max() < 0.05 * np.abs(exact).max()


def training_step(remat: bool):
    """The traced gradient of a step, its value, and the running statistics before and after."""
    sizes = {"backbone.blocks": (1, 1, 1), "backbone.first_dilations": (1, 1, 2)}
    sizes |= {"backbone.strides": (1, 2, 1), "backbone.dilations": (1, 1, 2), "aux_channels": 8}
    config = models.get_config("ccnet_r101_original", **{**SMALL, **sizes, "remat": remat})
    abstract = models.abstract_model(config, dtype=jnp.float64, param_dtype=jnp.float64)
    model = models.train_view(native.fill(abstract, random_state(config, 0)))
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    images = jax.random.normal(jax.random.key(0), (2, 16, 24, 3), jnp.float64)

    def loss(params):
        model = nnx.merge(graphdef, params, stats, copy=True)
        output = model(images, aux=True, rngs=nnx.Rngs(dropout=3))
        total = jnp.square(output.logits).mean() + jnp.square(output.aux[0]).mean()
        return total, nnx.state(model, nnx.BatchStat)

    traced = jax.jit(jax.grad(loss, has_aux=True)).trace(params)
    gradients, after = traced.lower().compile(COMPILER_OPTIONS["float64"])(params)
    return str(traced.jaxpr), *map(jax.tree.leaves, (gradients, stats, after))


@pytest.mark.usefixtures("x64")
def test_remat_changes_neither_gradients_nor_statistics():
    computation, gradients, before, after = training_step(remat=True)
    plain, expected, _, expected_after = training_step(remat=False)
    # Every one of the three blocks does its 3x3 convolution once more.
    name = "conv_general_dilated["
    assert computation.count(name) - plain.count(name) >= 3
    largest = max(abs(x).max() for x in expected)
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12 * largest)
    for ours, theirs in zip(after, expected_after, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert min(abs(a - b).max() for a, b in zip(after, before, strict=True)) > 0


@pytest.mark.parametrize("name", models.list_models("ccnet*"))
def test_published_initialisation(name):
    overrides = {"backbone.blocks": (1, 1, 1, 1), "backbone.width": 16}
    model = models.create_model(name, rngs=nnx.Rngs(0), **overrides)
    block = model.backbone.stages[3].blocks[0]
    deviation = np.std(block.conv2.weight[...])
    he = name != "ccnet_r101_original"
    expected = np.sqrt(2 / (9 * 128)) if he else 1 / np.sqrt(3 * 9 * 128)
    np.testing.assert_allclose(deviation, expected, rtol=0.02)
    published = name in ("ccnet_r50", "ccnet_r101")
    assert np.unique(block.bn3.weight[...]) == (0 if published else 1)
    assert model.head.cca.gamma[...] == 0
    fuse_in = model.head.fuse.conv.weight.shape[2]
    he, torch_default = np.sqrt(2 / (9 * 512)), 1 / np.sqrt(3 * 9 * fuse_in)
    expected = he if published else torch_default
    np.testing.assert_allclose(np.std(model.head.fuse.conv.weight[...]), expected, rtol=0.02)
    classifier = np.std(model.head.classifier.weight[...])
    expected = 0.01 if published else 1 / np.sqrt(3 * 512)
    np.testing.assert_allclose(classifier, expected, rtol=0.05)
    assert np.all(model.head.classifier.bias[...] == 0) == published
