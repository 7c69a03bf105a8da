"""The ViT segmenter by itself and beside its PyTorch twin."""

import math
import re

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from jax import numpy as jnp

import torch_ref
from convert import bridge
from convert.parity import figures
from convert.parity.runs import COMPILER_OPTIONS, FlaxRun, random_state
from flaxseg import models, native, ops
from flaxseg.errors import ConfigError
from flaxseg.models import vitseg

SMALL = models.get_config(
    "vitseg", num_classes=5, image_size=(24, 40), patch_size=8, width=16, depth=2, mlp_dim=32
)
"""3 x 5 patches, 8 heads of 2 channels."""


def forward_shapes(config, height: int, width: int, **options) -> models.Output:
    """Shapes of the output; nothing is computed."""
    images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    graphdef, state = nnx.split(models.eval_view(models.abstract_model(config)))
    return jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x, **options), state, images)


def test_parameter_count_is_the_published_one():
    leaves = native.leaves(models.abstract_model(models.get_config("vitseg")))
    shapes = [shape for key, shape in leaves.items() if ".running_" not in key]
    assert sum(map(math.prod, shapes)) == 86_284_806


@pytest.mark.parametrize("options", [{}, {"resize": False}, {"aux": True}])
def test_the_output_has_the_image_size(options):
    output = forward_shapes(SMALL, 24, 40, **options)
    assert output.logits.shape == (2, 24, 40, 5) and output.aux == ()
    wide = SMALL.with_image_size((16, 80))
    assert forward_shapes(wide, 16, 80, **options).logits.shape == (2, 16, 80, 5)


def test_images_of_another_size_are_refused_while_tracing():
    assert SMALL.fixed_size == (24, 40)
    message = re.escape("images of 40x24 pixels do not fit the network, whose position table is ")
    with pytest.raises(ConfigError, match=message + "for 24x40"):
        forward_shapes(SMALL, 40, 24)
    with pytest.raises(ConfigError, match=message):
        torch_ref.create_model(SMALL)(torch.zeros(1, 3, 40, 24))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (24, 41)}, r"'image_size' is \(24, 41\), expected .* patch size 8"),
        ({"image_size": (24,)}, r"'image_size' is \(24,\), expected \(H, W\)"),
        ({"image_size": (0, 8)}, r"'image_size' is \(0, 8\), expected"),
        ({"width": 20}, "'width' is 20, expected a multiple of the 8 heads"),
        ({"depth": 0}, "'depth' is 0, expected at least 1"),
        ({"dropout": 1.0}, "'dropout' is 1.0, expected 0 to below 1"),
        ({"aux_weights": (0.4,)}, r"'aux_weights' is \(0.4,\), expected no values"),
        ({"num_classes": 0}, "'num_classes' is 0, expected 1 to 255"),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        models.override(SMALL, changes)


def test_the_head_folds_class_then_row_then_column():
    """With weights of 0 the bias alone shows: every patch repeats it."""
    state = random_state(SMALL, 0)
    state["head.weight"] = np.zeros_like(state["head.weight"])
    state["head.bias"] = np.arange(5 * 8 * 8, dtype=np.float32)
    k, y, x = np.ogrid[:5, :24, :40]
    expected = 64 * k + 8 * (y % 8) + x % 8
    flax_model = models.eval_view(native.fill(models.abstract_model(SMALL), state))
    logits = flax_model(jnp.zeros((1, 24, 40, 3))).logits
    np.testing.assert_array_equal(logits[0].transpose(2, 0, 1), expected)
    torch_model = bridge.fill(torch_ref.create_model(SMALL), state).eval()
    logits = torch_model(torch.zeros(1, 3, 24, 40)).logits
    np.testing.assert_array_equal(logits[0].detach(), expected)


@pytest.mark.parametrize("size", [(24, 40), (40, 16), (32, 32)])
def test_equals_torch(size):
    case = figures.make_case(SMALL.with_image_size(size), size, batches=1)
    exact = case.flax("float64")
    measured = [figures.eval_figure(exact, case), *figures.step_figures(exact, case)]
    assert [figure for figure in measured if not figure.passed] == []
    assert len(measured) == 4
    tokens = size[0] // 8 * size[1] // 8
    masks = [(2, 8, tokens, tokens), (2, tokens, 16)] * SMALL.depth
    assert [mask.shape for mask in case.batches[0].masks] == masks


@pytest.fixture(scope="module")
def case() -> figures.Case:
    return figures.make_case(models.override(SMALL, {"dropout": 0.0}), (24, 40), batches=1)


def noticed(case: figures.Case, **weights: np.ndarray) -> bool:
    """Whether other weights in Flax alone fail the comparison."""
    state = {**case.state, **{key.replace("__", "."): a for key, a in weights.items()}}
    return not figures.eval_figure(FlaxRun(case.config, state, "float64"), case).passed


def color_fastest(case: figures.Case) -> bool:
    kernel = case.state["patch_embed.proj.weight"]
    turned = kernel.reshape(len(kernel), 8, 8, 3).transpose(0, 3, 1, 2)
    return noticed(case, patch_embed__proj__weight=turned)


def columns_before_rows(case: figures.Case) -> bool:
    turned = case.state["pos_embed"].reshape(5, 3, 16).transpose(1, 0, 2).reshape(15, 16)
    return noticed(case, pos_embed=turned)


def other_qkv_order(case: figures.Case) -> bool:
    weight = np.roll(case.state["blocks.1.attn.qkv.weight"], 16, axis=0)
    return noticed(case, blocks__1__attn__qkv__weight=weight)


def heads_interleaved(case: figures.Case) -> bool:
    key = "blocks.0.attn.qkv"
    weight = case.state[f"{key}.weight"].reshape(3, 2, 8, 16).transpose(0, 2, 1, 3)
    bias = case.state[f"{key}.bias"].reshape(3, 2, 8).transpose(0, 2, 1)
    return noticed(
        case,
        blocks__0__attn__qkv__weight=weight.reshape(48, 16),
        blocks__0__attn__qkv__bias=bias.reshape(48),
    )


def class_fastest(case: figures.Case) -> bool:
    weight = case.state["head.weight"].reshape(8, 8, 5, 16).transpose(2, 0, 1, 3)
    return noticed(case, head__weight=weight.reshape(320, 16))


@pytest.mark.parametrize(
    "mutate",
    [color_fastest, columns_before_rows, other_qkv_order, heads_interleaved, class_fastest],
)
def test_another_order_is_noticed(case, mutate):
    assert mutate(case)


def test_the_unchanged_network_passes(case):
    assert not noticed(case)


def test_another_eps_is_noticed(case, changed_code):
    changed_code.setattr(vitseg, "NORM_EPS", 1.1e-5)
    assert noticed(case)


def test_an_approximate_gelu_is_noticed(case, monkeypatch):
    monkeypatch.setattr(ops, "gelu", jax.nn.gelu)
    assert noticed(case)


def flax_state(config) -> dict[str, np.ndarray]:
    return native.state_dict(models.fresh_model(config, rngs=nnx.Rngs(0)))


def torch_state(config) -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    return bridge.state_dict(torch_ref.create_model(config))


@pytest.mark.parametrize("fresh", [flax_state, torch_state])
def test_initialisation_is_the_published_one(fresh):
    config = models.override(SMALL, {"width": 64, "mlp_dim": 128, "depth": 1})
    state = fresh(config)
    positions = state.pop("pos_embed")
    assert abs(positions.std() - 1) <= 5 / math.sqrt(positions.size)
    assert abs(positions.mean()) <= 5 / math.sqrt(positions.size)
    for key, array in state.items():
        inputs = math.prod(state[f"{key.rpartition('.')[0]}.weight"].shape[1:])
        if "norm" in key:
            one = key.endswith(("weight", "running_var"))
            assert np.all(array == (1 if one else 0)), key
        elif key.endswith(("qkv.bias", "attn.proj.bias")):
            assert not array.any(), key
        else:
            bound = math.sqrt(6 / (4 * 64)) if "qkv" in key else 1 / math.sqrt(inputs)
            # A uniform distribution's estimate from n values errs by 0.45 / sqrt(n).
            assert abs(array).max() <= bound, key
            assert abs(array.std() / bound * math.sqrt(3) - 1) <= 3 / math.sqrt(array.size), key


def training_step(dtype: str, remat: bool = False):
    """The traced gradient of a step with dropout, its value, and the loss."""
    config = models.override(SMALL, {"remat": remat})
    param_dtype = "float64" if dtype == "float64" else "float32"
    abstract = models.abstract_model(config, dtype=dtype, param_dtype=param_dtype)
    model = models.train_view(native.fill(abstract, random_state(config, 0)))
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    images = jax.random.normal(jax.random.key(0), (2, 24, 40, 3), param_dtype)

    def loss(params):
        model = nnx.merge(graphdef, params, stats, copy=True)
        logits = model(images, rngs=nnx.Rngs(dropout=3)).logits
        return jnp.square(logits).mean(), (logits, nnx.state(model, nnx.BatchStat))

    traced = jax.jit(jax.value_and_grad(loss, has_aux=True)).trace(params)
    (value, others), gradients = traced.lower().compile(COMPILER_OPTIONS["float64"])(params)
    return str(traced.jaxpr), value, jax.tree.leaves(gradients), others


@pytest.mark.usefixtures("x64")
def test_remat_changes_neither_gradients_nor_masks():
    computation, value, gradients, _ = training_step("float64", remat=True)
    plain, expected_value, expected, _ = training_step("float64")
    # Every block does its six matrix products once more.
    products = computation.count("dot_general[") - plain.count("dot_general[")
    assert products >= 6 * SMALL.depth
    np.testing.assert_allclose(value, expected_value, rtol=1e-12)
    largest = max(abs(x).max() for x in expected)
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12 * largest)


def test_bfloat16_trains_and_keeps_float32():
    _, value, gradients, (logits, statistics) = training_step("bfloat16")
    _, exact_value, exact, (exact_logits, _) = training_step("float32")
    kept = {leaf.dtype for leaf in (*gradients, *jax.tree.leaves(statistics))}
    assert kept == {jnp.dtype(jnp.float32)} and logits.dtype == jnp.float32
    assert abs(logits - exact_logits).max() < 0.05 * abs(exact_logits).max()
    np.testing.assert_allclose(value, exact_value, rtol=0.05)
    norm, exact_norm = (
        math.sqrt(sum(float(jnp.square(x).sum()) for x in side)) for side in (gradients, exact)
    )
    assert abs(norm / exact_norm - 1) < 0.1


def test_bfloat16_computes_in_half():
    graphdef, state = nnx.split(models.eval_view(models.abstract_model(SMALL, dtype=jnp.bfloat16)))

    def tokens(state, images):
        model = nnx.merge(graphdef, state)
        first = model.patch_embed(model.input_norm(images))
        return first, model.blocks[0](first)

    images = jax.ShapeDtypeStruct((1, 24, 40, 3), jnp.float32)
    assert {x.dtype for x in jax.eval_shape(tokens, state, images)} == {jnp.dtype(jnp.bfloat16)}
