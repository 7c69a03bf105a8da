"""The plain ViT encoder, by itself and beside its PyTorch twin."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from jax import numpy as jnp

from convert import bridge
from flaxseg import models, native, ops
from flaxseg.errors import ConfigError, FlaxsegError
from flaxseg.models import vit
from torch_ref import vit as torch_vit

SMALL = vit.ViTConfig(
    image_size=(24, 40),
    patch_size=8,
    width=12,
    depth=2,
    num_heads=3,
    head_dim=6,
    mlp_dim=20,
    out_indices=(0, 1),
    qkv_bias=True,
)
"""3 x 5 patches; three heads of 6 channels, although the width is 12."""

ANY_SIZE = dataclasses.replace(SMALL, resize_positions="bilinear")


def make(config: vit.ViTConfig, **options) -> vit.ViT:
    return vit.ViT(config, rngs=nnx.Rngs(0), **options)


def image(height: int, width: int, batch: int = 2) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (batch, height, width, 3))


def test_patches_are_a_strided_convolution():
    embed = vit.PatchEmbed(8, 12, rngs=nnx.Rngs(0))
    images = image(24, 40)
    convolved = embed.proj(images).reshape(2, 15, 12)
    np.testing.assert_allclose(embed(images), convolved, atol=1e-5)


def test_the_maps_are_the_residual_stream():
    model = make(SMALL)
    first, second = model(image(24, 40))
    assert first.shape == second.shape == (2, 3, 5, 12)
    tokens, grid = model.embed(image(24, 40))
    assert grid == (3, 5)
    after_first = model.blocks[0](tokens)
    np.testing.assert_allclose(first.reshape(2, 15, 12), after_first[:, 1:], rtol=1e-6)
    np.testing.assert_allclose(
        second.reshape(2, 15, 12), model.blocks[1](after_first)[:, 1:], rtol=1e-6
    )


def test_images_are_padded_with_zeros_at_the_bottom_and_right():
    model = make(ANY_SIZE)
    images = image(29, 35)
    padded = jnp.pad(images, ((0, 0), (0, 3), (0, 5), (0, 0)))
    maps = model(images)
    assert maps[0].shape == (2, 4, 5, 12)
    np.testing.assert_array_equal(maps[1], model(padded)[1])


@pytest.mark.parametrize("grid", [(6, 10), (2, 9), (1, 1)])
def test_positions_are_interpolated_and_the_class_token_keeps_its_own(grid):
    model = make(ANY_SIZE)
    table = torch.from_numpy(np.array(model.pos_embed[...]))
    patches = table[:, 1:].unflatten(1, (3, 5)).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(patches, grid, mode="bilinear")
    ours = model.positions(grid)
    np.testing.assert_array_equal(ours[:, 0], table[:, 0])
    np.testing.assert_allclose(ours[0, 1:], resized[0].flatten(1).T, atol=1e-6)


def test_as_many_patches_in_another_shape_are_not_interpolated():
    model = make(ANY_SIZE)
    np.testing.assert_array_equal(model.positions((5, 3)), model.pos_embed[...])


@pytest.mark.parametrize(("class_token", "matters"), [("keep", True), ("drop", False)])
def test_a_dropped_class_token_is_not_attended_to(class_token, matters):
    model = make(dataclasses.replace(SMALL, class_token=class_token))
    before = model(image(24, 40))[1]
    model.cls_token[...] = -model.cls_token[...]
    assert (np.abs(model(image(24, 40))[1] - before).max() > 1e-4) == matters


DROPOUTS = {"embed_dropout": 0.1, "dropout": 0.2, "attn_dropout": 0.3}


@pytest.mark.parametrize(
    ("field", "shapes"),
    [
        ("embed_dropout", [(2, 16, 12)]),
        ("attn_dropout", [(2, 3, 16, 16)] * 2),
        ("dropout", [(2, 16, 12), (2, 16, 20), (2, 16, 12)] * 2),
    ],
)
def test_what_is_dropped(monkeypatch, field, shapes):
    drawn = []

    def note(key, rate, shape):
        drawn.append((rate, shape))
        return jnp.ones(shape, bool)

    monkeypatch.setattr(ops.dropout, "keep_mask", note)
    config = dataclasses.replace(SMALL, **{field: DROPOUTS[field]})
    make(config)(image(24, 40), nnx.Rngs(dropout=0))
    assert drawn == [(DROPOUTS[field], shape) for shape in shapes]
    models.eval_view(make(config))(image(24, 40))
    assert len(drawn) == len(shapes)


def test_training_with_dropout_needs_keys():
    with pytest.raises(FlaxsegError, match="needs random keys"):
        make(dataclasses.replace(SMALL, attn_dropout=0.1))(image(24, 40))


FAST_COMPILE = {"xla_backend_optimization_level": 0}
"""Plain machine code; what is computed and kept is the same."""


def gradients(model: vit.ViT, images: jax.Array) -> dict[str, np.ndarray]:
    graphdef, params = nnx.split(model)

    @functools.partial(jax.jit, compiler_options=FAST_COMPILE)
    def run(params):
        def loss(params):
            maps = nnx.merge(graphdef, params)(images, nnx.Rngs(dropout=5))
            return sum((x**2).mean() for x in maps)

        return jax.grad(loss)(params)

    return native.state_dict(nnx.merge(graphdef, run(params)))


def test_remat_has_the_same_gradients():
    config = dataclasses.replace(SMALL, **DROPOUTS)
    kept = gradients(make(config), image(24, 40))
    again = gradients(make(config, remat=True), image(24, 40))
    for key, gradient in kept.items():
        np.testing.assert_allclose(again[key], gradient, atol=1e-5 * np.abs(gradient).max())


def test_remat_trains_in_less_memory():
    config = dataclasses.replace(SMALL, image_size=(64, 64), depth=6, out_indices=(5,))

    def memory(remat: bool) -> int:
        model = nnx.eval_shape(lambda: make(config, remat=remat))
        graphdef, params = nnx.split(model)
        images = jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.float32)
        loss = jax.jit(jax.grad(lambda p, x: (nnx.merge(graphdef, p)(x)[0] ** 2).sum()))
        compiled = loss.lower(params, images).compile(compiler_options=FAST_COMPILE)
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(True) < 0.5 * memory(False)


def test_bfloat16_computes_half_and_keeps_float32():
    model, exact = make(SMALL, dtype=jnp.bfloat16), make(SMALL)(image(24, 40))[1]
    half = model(image(24, 40))[1]
    assert half.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype(jnp.float32)}
    assert np.abs(half.astype(jnp.float32) - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (24, 41)}, r"'image_size' is \(24, 41\), expected .* patch size 8"),
        ({"image_size": (24,)}, r"'image_size' is \(24,\), expected \(H, W\)"),
        ({"head_dim": 0, "num_heads": 5}, "'head_dim' is 0, .*5 heads share 12 channels"),
        ({"head_dim": -1}, "'head_dim' is -1, expected 1 or more"),
        ({"out_indices": ()}, r"'out_indices' is \(\), expected blocks from 0 to 1"),
        ({"out_indices": (2,)}, r"'out_indices' is \(2,\), expected blocks from 0 to 1"),
        ({"depth": 0}, "'depth' is 0, expected at least 1"),
        ({"norm_eps": 0.0}, "'norm_eps' is 0.0, expected above 0"),
        ({"attn_dropout": 1.0}, "'attn_dropout' is 1.0, expected 0 to below 1"),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **changes)


WIDTH, INNER, HIDDEN = 64, 96, 160
PATCH = 3 * 8 * 8
UNIFORM = {"patch": PATCH, "qkv": WIDTH, "proj": INNER, "fc1": WIDTH, "fc2": HIDDEN}
"""Inputs of each layer: torch draws weights and biases from U(-1, 1) / sqrt(inputs)."""

STD = {
    "torch": {
        "tokens": 1.0,
        **{f"{name}.weight": (3 * n) ** -0.5 for name, n in UNIFORM.items()},
        **{f"{name}.bias": (3 * n) ** -0.5 for name, n in UNIFORM.items()},
    },
    "timm": {
        "tokens": 0.02,
        "patch.weight": (3 * PATCH) ** -0.5,
        "patch.bias": (3 * PATCH) ** -0.5,
        **{f"{name}.weight": 0.02 for name in ("qkv", "proj", "fc1", "fc2")},
        **{f"{name}.bias": 0.0 for name in ("qkv", "proj", "fc1", "fc2")},
    },
    "jax": {
        "tokens": 0.02,
        "patch.weight": (2 / PATCH) ** 0.5,
        "patch.bias": 0.0,
        "qkv.weight": (2 / (WIDTH + 3 * INNER)) ** 0.5,
        "qkv.bias": 0.0,
        "proj.weight": 0.02,
        "proj.bias": 0.0,
        **{f"{name}.weight": 0.02 for name in ("fc1", "fc2")},
        **{f"{name}.bias": 1e-6 for name in ("fc1", "fc2")},
    },
}
"""Standard deviations as published; a mean of 0 everywhere."""


def draws(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters of all blocks by layer, those of the norms left out."""
    groups: dict[str, list[np.ndarray]] = {}
    for key, array in state.items():
        name = re.sub(r"^blocks\.\d+\.(attn|mlp)\.", "", key).replace("patch_embed.proj", "patch")
        name = "tokens" if name in ("cls_token", "pos_embed") else name
        if ".norm" not in key:
            groups.setdefault(name, []).append(array.ravel())
    return {name: np.concatenate(arrays) for name, arrays in groups.items()}


@pytest.mark.parametrize("side", ["flax", "torch"])
@pytest.mark.parametrize("init", STD)
def test_initialisation_as_published(init, side):
    config = dataclasses.replace(
        SMALL, width=WIDTH, head_dim=INNER // 3, mlp_dim=HIDDEN, depth=4, init=init
    )
    torch.manual_seed(0)
    flax_side = side == "flax"
    state = (
        native.state_dict(make(config)) if flax_side else bridge.state_dict(torch_vit.ViT(config))
    )
    found = draws(state)
    assert found.keys() == STD[init].keys()
    for name, expected in STD[init].items():
        values = found[name].astype(np.float64)
        spread = 5 / np.sqrt(values.size)
        assert abs(values.mean()) <= spread * expected, name
        assert abs(values.std() - expected) <= spread * expected, name
    scales = np.concatenate([a for k, a in state.items() if re.search(r"norm\d.weight", k)])
    shifts = np.concatenate([a for k, a in state.items() if re.search(r"norm\d.bias", k)])
    assert np.all(scales == 1) and np.all(shifts == 0) and scales.size == 8 * WIDTH
