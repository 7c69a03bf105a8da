import functools
import math
import re

import jax
import numpy as np
import pytest
from flax import nnx
from jax import numpy as jnp

from convert.parity.runs import COMPILER_OPTIONS, random_state
from flaxseg import models, native
from flaxseg.errors import ConfigError, FlaxsegError

NAMES = models.list_models("bisenetv2*")
SMALL = {
    "num_classes": 5,
    "backbone.detail_channels": (4, 6, 8),
    "backbone.detail_layers": (1, 1, 1),
    "backbone.semantic_channels": (4, 4, 6, 8),
    "backbone.semantic_layers": (1, 1, 1),
    "backbone.expansion": 2,
    "head_channels": 8,
    "aux_channels": (3, 4, 5, 6),
}
NO_AUX = {**SMALL, "aux_channels": (), "aux_weights": ()}


def shapes(name: str, size: tuple[int, int], overrides=SMALL, **options) -> models.Output:
    """Shapes of a network's output; nothing is computed."""
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    model = models.abstract_model(models.get_config(name, **overrides))
    graphdef, state = nnx.split(models.eval_view(model))
    return jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x, **options), state, images)


def strides(output: models.Output, size: tuple[int, int]) -> list[int]:
    """Image pixels for each pixel of every output; both axes must agree."""
    found = []
    for x in (output.logits, *output.aux):
        assert x.shape[0] == 2 and x.shape[3] == 5
        (stride,) = {side // n for side, n in zip(size, x.shape[1:3], strict=True)}
        found.append(stride)
    return found


@pytest.mark.parametrize(
    ("name", "num_classes", "published"),
    [
        ("bisenetv2", 33, 4_962_477),
        ("bisenetv2_matmul", 33, 4_962_477),
        ("bisenetv2_mmseg", 19, 14_804_255),
        ("bisenetv2_coincheung", 19, 5_231_487),
    ],
)
def test_parameter_count_is_the_published_one(name, num_classes, published):
    model = models.abstract_model(models.get_config(name, num_classes=num_classes))
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(math.prod(leaf.shape) for leaf in leaves) == published


@pytest.mark.parametrize("name", NAMES)
def test_output_sizes(name):
    size = (64, 64) if name == "bisenetv2_matmul" else (64, 96)
    final = shapes(name, size, aux=True)
    assert strides(final, size) == [1] * 5
    raw = shapes(name, size, aux=True, resize=False)
    twice = name == "bisenetv2_coincheung"
    assert strides(raw, size) == ([8, 2, 4, 8, 16] if twice else [8, 4, 8, 16, 32])


@pytest.mark.parametrize("size", [(33, 47), (62, 90), (1, 9)])
def test_sizes_that_follow_the_maps(size):
    final = shapes("bisenetv2_mmseg", size, aux=True)
    assert {x.shape[1:3] for x in (final.logits, *final.aux)} == {size}
    raw = shapes("bisenetv2_mmseg", size, aux=True, resize=False)
    for x, stride in zip((raw.logits, *raw.aux), (8, 4, 8, 16, 32), strict=True):
        assert x.shape[1:3] == tuple(-(-side // stride) for side in size)


@pytest.mark.parametrize("name", NAMES)
def test_aux_is_empty_unless_asked_for(name):
    assert shapes(name, (64, 64)).aux == ()
    assert shapes(name, (64, 64), NO_AUX, aux=True).aux == ()


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("bisenetv2", (64, 95), "64x95 pixels .* multiples of 32"),
        ("bisenetv2", (48, 64), "48x64 pixels .* multiples of 32"),
        ("bisenetv2_coincheung", (63, 64), "63x64 pixels .* multiples of 32"),
        ("bisenetv2_matmul", (95, 95), "95x95 pixels .* multiples of 32"),
        ("bisenetv2_matmul", (64, 96), "64x96 pixels .* square images; crop or resize"),
    ],
)
def test_sizes_that_do_not_fit(name, size, message):
    with pytest.raises(ConfigError, match=message):
        shapes(name, size)


def test_size_properties():
    divisors = {name: models.get_config(name).size_divisor for name in NAMES}
    assert divisors == {name: 1 if name == "bisenetv2_mmseg" else 32 for name in NAMES}
    assert {models.get_config(name).fixed_size for name in NAMES} == {None}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"backbone.detail_channels": (8, 8)}, "'detail_channels' .* 3 whole numbers"),
        ({"backbone.semantic_layers": (1, 0, 1)}, "'semantic_layers' .* from 1 on"),
        ({"backbone.semantic_channels": (3, 4, 8, 128)}, "an even first number"),
        ({"backbone.semantic_channels": (4, 4, 8, 64)}, "128 as last number"),
        ({"backbone.expansion": 0}, "'expansion' is 0"),
        ({"head_channels": 0}, "'head_channels' is 0"),
        ({"aux_channels": (8, 8)}, "'aux_channels' .* none or 4"),
        ({"aux_channels": ()}, "'aux_weights' .* expected 0 values"),
        ({"dropout": 1.0}, "'dropout' is 1.0"),
        ({"fusion": "mean"}, "'fusion' is 'mean', expected one of"),
        ({"fusion": "matmul", "whole_factors": False}, "'whole_factors' is False"),
        ({"num_classes": 256}, "'num_classes' is 256"),
    ],
)
def test_fields_that_do_not_fit(overrides, message):
    with pytest.raises(ConfigError, match=message):
        models.get_config("bisenetv2", **overrides)


@pytest.mark.parametrize("name", NAMES)
def test_configurations_survive_json(name):
    config = models.get_config(name, **NO_AUX)
    assert models.config_from_json(models.config_to_json(config)) == config


def test_a_normalised_context_needs_two_images():
    config = models.get_config("bisenetv2_mmseg", **SMALL, dropout=0.0)
    with pytest.raises(FlaxsegError, match="at least 2 values per channel"):
        nnx.eval_shape(lambda x: models.build(config, rngs=nnx.Rngs(0))(x), jnp.zeros((1, 8, 8, 3)))


def trace_step(name: str, dtype=jnp.float32, **overrides):
    """The traced gradient of a step, and the shapes of logits, gradients and new statistics."""
    config = models.get_config(name, **{**SMALL, **overrides})
    model = models.train_view(models.abstract_model(config, dtype=dtype))
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

    def loss(params, stats, images):
        model = nnx.merge(graphdef, params, stats, copy=True)
        output = model(images, aux=True, rngs=nnx.Rngs(dropout=3))
        logits = (output.logits, *output.aux)
        return sum(jnp.square(x).mean() for x in logits), (logits, nnx.state(model, nnx.BatchStat))

    step = jax.jit(jax.grad(loss, has_aux=True))
    traced = step.trace(params, stats, jax.ShapeDtypeStruct((4, 32, 64, 3), jnp.float32))
    gradients, (logits, stats) = traced.out_info
    return str(traced.jaxpr), *map(jax.tree.leaves, (logits, gradients, stats))


def test_remat_computes_every_layer_again():
    convolutions = [
        trace_step("bisenetv2_mmseg", remat=remat)[0].count("conv_general_dilated[")
        for remat in (True, False)
    ]
    # 3 of the detail branch, 3 of the stem, 1 of every gather-and-expansion layer; depthwise ones
    # are sums on a CPU.
    assert convolutions[0] - convolutions[1] >= 9


@pytest.mark.parametrize("name", ["bisenetv2", "bisenetv2_mmseg", "bisenetv2_coincheung"])
def test_bfloat16_trains_in_float32(name):
    computation, logits, gradients, stats = trace_step(name, jnp.bfloat16)
    assert "bf16" in computation
    assert len(logits) == 5 and gradients and stats
    assert {x.dtype for x in (*logits, *gradients, *stats)} == {jnp.dtype(jnp.float32)}


@functools.cache
def evaluate(dtype):
    """The fused map, the logits and the running statistics before and after."""
    config = models.get_config("bisenetv2", **SMALL)
    abstract = models.abstract_model(config, dtype=dtype)
    model = models.eval_view(native.fill(abstract, random_state(config, 0)))
    graphdef, state = nnx.split(model)

    def run(state, images):
        model = nnx.merge(graphdef, state)
        return model.backbone(images)[0], model(images).logits, nnx.state(model, nnx.BatchStat)

    images = jax.random.normal(jax.random.key(0), (1, 64, 32, 3))
    compiled = jax.jit(run, compiler_options=COMPILER_OPTIONS["float64"])
    fused, logits, after = compiled(state, images)
    return fused, logits, *map(jax.tree.leaves, (nnx.state(model, nnx.BatchStat), after))


def test_bfloat16_is_near_float32():
    fused, near, *_ = evaluate(jnp.bfloat16)
    assert fused.dtype == jnp.bfloat16 and near.dtype == jnp.float32
    exact = evaluate(jnp.float32)[1]
    assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()


def test_evaluation_keeps_the_statistics():
    *_, before, after = evaluate(jnp.float32)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


WIDE = {
    **SMALL,
    "backbone.detail_channels": (32, 32, 64),
    "backbone.semantic_channels": (16, 32, 64, 64),
    "backbone.expansion": 6,
    "aux_channels": (32, 32, 32, 32),
    "num_classes": 100,
}


@pytest.mark.parametrize("name", ["bisenetv2", "bisenetv2_mmseg", "bisenetv2_coincheung"])
def test_published_initialisation(name):
    config = models.get_config(name, **WIDE)
    # Drawn one by one, as each shape then compiles once.
    arrays = native.state_dict(models.build(config, rngs=nnx.Rngs(0)))
    torch_default = name == "bisenetv2"
    zero = name == "bisenetv2_coincheung"
    for key, array in arrays.items():
        if array.ndim == 4:
            out, *inputs = array.shape
            he = math.sqrt(2 / (out * array.shape[2] * array.shape[3]))
            expected = 1 / math.sqrt(3 * math.prod(inputs)) if torch_default else he
            if name == "bisenetv2_mmseg" and key.endswith("classifier.weight"):
                expected = 0.01
            assert abs(array.std() / expected - 1) <= 5 / math.sqrt(2 * array.size), key
            assert abs(array.mean()) <= 5 * expected / math.sqrt(array.size), key
        elif key.endswith(".bias") and f"{key[:-5]}.running_var" not in arrays:
            inputs = arrays[f"{key[:-5]}.weight"].shape[1:]
            bound = 1 / math.sqrt(math.prod(inputs)) if torch_default else 0
            assert 0.5 * bound <= abs(array).max() <= bound, key
        elif key.endswith(".weight"):
            last = bool(re.search(r"stages\.\d\.\d\.project\.bn", key))
            assert np.unique(array) == (0 if last and zero else 1), key
