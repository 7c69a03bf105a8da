import math

import jax
import numpy as np
import pytest
from flax import nnx
from jax import numpy as jnp

from convert.parity.runs import COMPILER_OPTIONS, random_state
from flaxseg import models, native, ops
from flaxseg.errors import ConfigError
from flaxseg.models import mit

SMALL = {
    "backbone.widths": (8, 12),
    "backbone.depths": (1, 2),
    "backbone.heads": (1, 2),
    "backbone.reductions": (4, 1),
    "channels": 16,
}
SIZES = ("b0", "b1", "b2", "b3", "b4", "b5")
FAMILIES = ("segformer", "segformer_b0", "segformer_b0_hf", "segformer_b0_mmseg")
UNUSED = 128 + 1
"""Weights of the classifier for one class that the authors' files carry and never use."""

ENCODERS = (3_319_392, 13_151_424, 24_196_288, 44_072_128, 60_842_688, 81_443_008)
TUTORIAL = (3_719_027, 13_682_131, 27_361_235, 47_237_075, 64_007_635, 84_607_955)
MMSEG = (3_753_718, 13_716_822, 24_761_686, 44_637_526, 61_408_086, 82_008_406)


def small(name: str, dtype=jnp.float32) -> models.SegFormer:
    config = models.get_config(name, **SMALL)
    return native.fill(models.abstract_model(config, dtype=dtype), random_state(config, 0))


def counts(config: models.Config) -> tuple[int, int]:
    """Trained values of the encoder and of the whole network."""
    model = models.abstract_model(config)
    leaves = (jax.tree.leaves(nnx.state(part, nnx.Param)) for part in (model.backbone, model))
    encoder, whole = (sum(math.prod(leaf.shape) for leaf in part) for part in leaves)
    return encoder, whole


def shapes(config: models.Config, height: int, width: int, **options) -> models.Output:
    """Shapes of a network's output; nothing is computed."""
    images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    graphdef, state = nnx.split(models.eval_view(models.abstract_model(config)))
    return jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x, **options), state, images)


@pytest.mark.parametrize("index", range(6), ids=SIZES)
def test_parameter_counts_are_the_published_ones(index):
    size = SIZES[index]
    authors = models.get_config(f"segformer_{size}")
    sizes = {"backbone.widths": authors.backbone.widths, "backbone.depths": authors.backbone.depths}
    tutorial = models.get_config("segformer", channels=authors.channels, **sizes)
    assert counts(tutorial) == (ENCODERS[index], TUTORIAL[index])
    mmseg = models.get_config(f"segformer_{size}_mmseg")
    assert counts(mmseg) == (ENCODERS[index], MMSEG[index])


@pytest.mark.parametrize(
    ("name", "num_classes", "published"),
    [
        ("segformer", 19, TUTORIAL[0]),
        ("segformer_b0", 150, 3_772_044 - 150 * UNUSED),
        ("segformer_b1", 150, 13_735_148 - 150 * UNUSED),
        ("segformer_b2", 19, 27_363_686 - 19 * UNUSED),
        ("segformer_b4", 19, 64_010_086 - 19 * UNUSED),
        ("segformer_b0_hf", 150, 3_752_694),
        ("segformer_b1_hf", 150, 13_715_798),
        ("segformer_b3_hf", 150, 47_337_814),
        ("segformer_b4_hf", 150, 64_108_374),
    ],
)
def test_parameter_counts_of_single_checkpoints(name, num_classes, published):
    assert counts(models.get_config(name, num_classes=num_classes))[1] == published


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (33, 120)])
def test_logits_have_the_size_of_the_image(name, height, width):
    config = models.get_config(name)
    assert shapes(config, height, width).logits.shape == (2, height, width, config.num_classes)
    raw = shapes(config, height, width, resize=False).logits.shape
    assert raw == (2, -(-height // 4), -(-width // 4), config.num_classes)
    assert shapes(config, height, width, aux=True).aux == ()


def test_the_encoder_halves_the_map_and_rounds_up():
    model = models.eval_view(models.abstract_model(models.get_config("segformer")))
    graphdef, state = nnx.split(model.backbone)
    images = jax.ShapeDtypeStruct((1, 33, 71, 3), jnp.float32)
    outputs = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, images)
    shapes = [x.shape for x in outputs]
    assert shapes == [(1, 9, 18, 32), (1, 5, 9, 64), (1, 3, 5, 160), (1, 2, 3, 256)]


def test_images_without_a_key_are_refused():
    config = models.get_config("segformer")
    assert config.backbone.smallest_side == 29
    assert shapes(config, 29, 40).logits.shape == (2, 29, 40, 19)
    with pytest.raises(ConfigError, match="28x40 pixels are too small .* needs 29 or more"):
        shapes(config, 28, 40)
    with pytest.raises(ConfigError, match="40x28"):
        config.check_size((40, 28))
    reduced = models.get_config("segformer", **{"backbone.reductions": (1, 1, 1, 4)})
    assert reduced.backbone.smallest_side == 3 * 32 + 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"channels": 0}, "'channels' is 0, expected at least 1"),
        ({"dropout": 1.0}, "'dropout' is 1.0, expected 0 to below 1"),
        ({"head": "lawin"}, "'head' is 'lawin', expected one of"),
        ({"dropout_kind": "tokens"}, "'dropout_kind' is 'tokens', expected one of"),
        ({"aux_weights": (0.4,)}, r"'aux_weights' is \(0.4,\), expected no values"),
        ({"backbone.depths": (2, 2)}, r"'depths' is \(2, 2\), expected one value a stage"),
        ({"backbone.heads": (1, 2, 3, 8)}, r"'heads' is .*, expected divisors of widths, \(32, 64"),
        ({"backbone.reductions": (8, 4, 2, 0)}, "'reductions' is .*, expected whole numbers"),
        ({"backbone.norm_eps": 0.0}, "'norm_eps' is 0.0, expected above 0"),
        ({"backbone.drop_path": -0.1}, "'drop_path' is -0.1, expected 0 to below 1"),
        ({"backbone.mlp_ratio": 0}, "'mlp_ratio' is 0, expected at least 1"),
    ],
)
def test_configurations_check_themselves(overrides, message):
    with pytest.raises(ConfigError, match=message):
        models.get_config("segformer", **overrides)


def test_drop_path_grows_evenly_over_all_blocks():
    model = models.abstract_model(models.get_config("segformer_b2"))
    rates = [block.drop_path.rate for stage in model.backbone.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, np.linspace(0, 0.1, 16), rtol=1e-12)
    single = models.MiTConfig(widths=(8,), depths=(1,), heads=(1,), reductions=(1,))
    assert single.drop_path_rates(0) == [0]


@pytest.mark.parametrize("size", [(8, 8), (11, 15), (4, 7)])
def test_the_reduction_is_a_strided_convolution(size):
    layer = mit.ReductionConv(3, 5, 4, stride=4, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    expected = ops.Conv.__call__(layer, x)
    assert expected.shape == (2, size[0] // 4, size[1] // 4, 5)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)


def evaluate(model: models.SegFormer, images: jax.Array) -> jax.Array:
    """Logits in eval mode; compiled, since op by op takes longer."""
    graphdef, state = nnx.split(models.eval_view(model))
    forward = jax.jit(
        lambda s, x: nnx.merge(graphdef, s)(x).logits, compiler_options=COMPILER_OPTIONS["float64"]
    )
    return forward(state, images)


def training_step(name: str, remat: bool):
    """The traced gradient of a step with dropout, its value, and running statistics after it."""
    config = models.get_config(name, **{**SMALL, "backbone.drop_path": 0.5, "remat": remat})
    abstract = models.abstract_model(config, dtype=jnp.float64, param_dtype=jnp.float64)
    model = models.train_view(native.fill(abstract, random_state(config, 0)))
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    images = jax.random.normal(jax.random.key(0), (2, 32, 40, 3), jnp.float64)

    def loss(params):
        model = nnx.merge(graphdef, params, stats, copy=True)
        output = model(images, rngs=nnx.Rngs(dropout=3))
        return jnp.square(output.logits).mean(), nnx.state(model, nnx.BatchStat)

    traced = jax.jit(jax.grad(loss, has_aux=True)).trace(params)
    gradients, after = traced.lower().compile(COMPILER_OPTIONS["float64"])(params)
    return str(traced.jaxpr), *map(jax.tree.leaves, (gradients, stats, after))


@pytest.mark.usefixtures("x64")
def test_remat_changes_neither_gradients_nor_statistics():
    computation, gradients, before, after = training_step("segformer", remat=True)
    plain, expected, _, expected_after = training_step("segformer", remat=False)
    # Each of the three blocks computes its activation once more.
    name = "= erf "
    assert computation.count(name) - plain.count(name) >= 3
    largest = max(abs(x).max() for x in expected)
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12 * largest)
    for ours, theirs in zip(after, expected_after, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert min(abs(a - b).max() for a, b in zip(after, before, strict=True)) > 0


@pytest.mark.parametrize("name", ["segformer", "segformer_b0_mmseg"])
def test_bfloat16_computes_half_and_keeps_float32(name):
    model = small(name, jnp.bfloat16)
    graphdef, params, stats = nnx.split(models.train_view(model), nnx.Param, nnx.BatchStat)
    images = jax.ShapeDtypeStruct((2, 33, 40, 3), jnp.float32)

    def loss(params, images):
        model = nnx.merge(graphdef, params, stats, copy=True)
        logits = model(images, rngs=nnx.Rngs(dropout=0)).logits
        return jnp.square(logits).mean(), (logits, nnx.state(model, nnx.BatchStat))

    features = jax.eval_shape(models.eval_view(model).backbone, images)
    assert {x.dtype for x in features} == {jnp.dtype(jnp.bfloat16)}
    learnt = jax.eval_shape(jax.grad(loss, has_aux=True), params, images)
    assert {x.dtype for x in jax.tree.leaves(learnt)} == {jnp.dtype(jnp.float32)}


def test_bfloat16_is_near_float32():
    images = jax.random.normal(jax.random.key(0), (2, 33, 40, 3))
    near = evaluate(small("segformer", jnp.bfloat16), images)
    exact = evaluate(small("segformer"), images)
    assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("name", "shape"), [("segformer", (2, 1, 1, 16)), ("segformer_b0_hf", (2, 9, 10, 16))]
)
def test_what_is_dropped_before_the_classifier(name, shape):
    assert small(name).head.dropout.mask_shape((2, 9, 10, 16)) == shape


HE, SMALL_STD = "he", 0.02
MOMENTS = {
    # patch embedding, query, key and value, first MLP layer, depthwise, level, fuse, classifier
    "segformer": (HE, SMALL_STD, SMALL_STD, (2 / 9 / 256) ** 0.5, SMALL_STD, HE, (2 / 40) ** 0.5),
    "segformer_b0": (HE, SMALL_STD, SMALL_STD, (2 / 9) ** 0.5, "torch", HE, "torch"),
    "segformer_b0_hf": (SMALL_STD,) * 7,
    "segformer_b0_mmseg": (HE, (1 / 2 / 64) ** 0.5, (2 / 256) ** 0.5, (2 / 9) ** 0.5, HE, HE, 0.01),
}
"""Standard deviations of stage 2's weights and the head's at width 256, by the published code."""


@pytest.mark.parametrize("name", FAMILIES)
def test_published_initialisation(name):
    overrides = {"backbone.depths": (1, 1, 1, 1)}
    model = models.create_model(name, 40, rngs=nnx.Rngs(0), **overrides)
    stage, head = model.backbone.stages[1], model.head
    block = stage.blocks[0]
    level = head.linears[3] if model.config.head == "mlp" else head.convs[3].conv
    layers = {
        "patch_embed": stage.patch_embed.proj,
        "q": block.attn.q,
        "fc1": block.mlp.fc1,
        "dwconv": block.mlp.dwconv,
        "level": level,
        "fuse": head.fuse.conv,
        "classifier": head.classifier,
    }
    fan_out = {"patch_embed": 9 * 64, "level": 256, "fuse": 256}
    for (layer, module), expected in zip(layers.items(), MOMENTS[name], strict=True):
        weight = np.asarray(module.weight[...])
        default = expected == "torch"
        if expected == HE:
            expected = math.sqrt(2 / fan_out[layer])
        if default:
            expected = 1 / math.sqrt(3 * 256)
        tolerance = 4 / math.sqrt(2 * weight.size)
        assert abs(weight.std() / expected - 1) < tolerance, (layer, weight.std(), expected)
        if module.bias is not None:
            assert np.all(module.bias[...] == 0) != default, layer
    joint = block.attn.kv.weight[...].std() / block.attn.q.weight[...].std()
    assert abs(joint - 1) < 0.06
    assert abs(np.std(block.attn.proj.weight[...]) / 0.02 - 1) < 0.05
    for norm in (stage.norm, block.norm1, block.attn.norm, head.fuse.bn):
        assert np.all(norm.weight[...] == 1) and np.all(norm.bias[...] == 0)
