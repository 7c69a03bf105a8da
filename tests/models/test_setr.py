import functools
import math

import jax
import numpy as np
import pytest
from flax import nnx
from jax import numpy as jnp

from convert.parity.networks import small_config
from convert.parity.runs import COMPILER_OPTIONS, random_state
from flaxseg import models, native
from flaxseg.errors import ConfigError
from flaxseg.models import setr_heads

NAMES = models.list_models("setr*")


def shapes(config: models.SETRConfig, height: int, width: int, **options) -> models.Output:
    """Shapes of a network's output; nothing is computed."""
    images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    graphdef, state = nnx.split(models.eval_view(models.abstract_model(config)))
    return jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x, **options), state, images)


@pytest.mark.parametrize(
    ("name", "num_classes", "published"),
    [
        ("setr", 32, 219_397_248),
        ("setr", 3, 219_129_868),
        ("setr_naive", 150, 305_557_592),
        ("setr_pup", 150, 317_290_072),
        ("setr_mla", 150, 309_569_262),
        ("setr_pup_cityscapes", 19, 318_466_124),
        ("setr_naive_original", 150, 305_669_296 - 4 * 76_950),
        ("setr_pup_original", 150, 318_307_292 - 5 * 76_950),
    ],
)
def test_parameter_count_is_the_published_one(name, num_classes, published):
    """The authors' files hold an unused classifier of 76950 parameters for every head."""
    config = models.get_config(name, num_classes=num_classes)
    leaves = native.leaves(models.abstract_model(config))
    assert sum(math.prod(s) for key, s in leaves.items() if ".running_" not in key) == published


# Height and width of the heads' own maps, main and auxiliary, over those of the grid of patches.
OWN_SCALES = {
    "setr": (16, 16),
    "setr_naive": (4, 16),
    "setr_pup": (16, 16),
    "setr_mla": (4, 1),
    "setr_naive_cityscapes": (4, 4),
    "setr_pup_cityscapes": (16, 16),
    "setr_mla_cityscapes": (4, 1),
    "setr_naive_original": (1, 1),
    "setr_pup_original": (8, 4),
    "setr_mla_original": (4, 1),
}
AUX_HEADS = {name: 4 if "mla" in name or name == "setr_pup_original" else 3 for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_output_sizes(name):
    config = small_config(name)
    height, width = (32, 48) if config.fixed_size else (37, 50)
    rows, cols = -(-height // 8), -(-width // 8)
    output = shapes(config, height, width, aux=True)
    assert output.logits.shape == (2, height, width, 5)
    assert [x.shape for x in output.aux] == [(2, height, width, 5)] * AUX_HEADS[name]
    raw = shapes(config, height, width, aux=True, resize=False)
    own, own_aux = OWN_SCALES[name]
    assert raw.logits.shape == (2, own * rows, own * cols, 5)
    assert {x.shape for x in raw.aux} == {(2, own_aux * rows, own_aux * cols, 5)}


def test_published_sizes():
    fixed = {name: models.get_config(name).fixed_size for name in NAMES}
    assert fixed.pop("setr") == (256, 256)
    assert {s for n, s in fixed.items() if n.endswith("original")} == {(512, 512)}
    assert {s for n, s in fixed.items() if not n.endswith("original")} == {None}
    assert shapes(models.get_config("setr_naive"), 512, 683).logits.shape == (2, 512, 683, 150)


def test_aux_is_empty_unless_asked_for():
    assert shapes(small_config("setr_pup"), 32, 48).aux == ()


@pytest.mark.parametrize("name", ["setr", "setr_mla_original"])
def test_images_of_another_size_are_refused_while_tracing(name):
    with pytest.raises(ConfigError, match=r"images of 48x32 pixels do not fit .* for 32x48"):
        shapes(small_config(name), 48, 32)


def test_another_image_size_is_another_table_where_the_size_is_fixed():
    config = small_config("setr").with_image_size((16, 64))
    assert config.fixed_size == (16, 64)
    assert shapes(config, 16, 64).logits.shape == (2, 16, 64, 5)
    with pytest.raises(ConfigError, match=r"'image_size' is \(16, 63\), expected .* multiples"):
        config.with_image_size((16, 63))
    anything = small_config("setr_naive")
    assert anything.with_image_size((16, 63)) == anything


@pytest.mark.parametrize("deepest_first", [True, False])
def test_levels_add_up_from_the_deepest_on(deepest_first):
    """What only the shallowest map holds reaches one sum; what only the deepest holds, all."""
    neck = setr_heads.MLANeck(
        3, 4, 4, norm_eps=1e-6, deepest_first=deepest_first, head_init="torch", rngs=nnx.Rngs(0)
    )
    neck = models.eval_view(neck)
    maps = list(jax.random.normal(jax.random.key(0), (3, 1, 5, 5, 4)))

    def changed(level: int) -> list[bool]:
        others = [-x if i == level else x for i, x in enumerate(maps)]
        pairs = zip(neck(maps), neck(others), strict=True)
        return [bool(np.abs(a - b).max() > 1e-3) for a, b in pairs]

    order = 1 if deepest_first else -1
    assert changed(0) == [False, False, True][::order]
    assert changed(1) == [False, True, True][::order]
    assert changed(2) == [True, True, True]


def test_bfloat16_trains_and_keeps_float32():
    images = jax.random.normal(jax.random.key(0), (2, 32, 48, 3))

    config = small_config("setr_mla")
    filled = native.fill(models.abstract_model(config), random_state(config, 0))

    @functools.partial(jax.jit, static_argnums=0, compiler_options=COMPILER_OPTIONS["float64"])
    def run(dtype, params, statistics):
        graphdef = nnx.graphdef(models.abstract_model(config, dtype=dtype))

        def loss(params):
            model = nnx.merge(graphdef, params, statistics, copy=True)
            output = model(images, aux=True)
            total = sum((x**2).mean() for x in (output.logits, *output.aux))
            return total, (model.backbone(images)[-1], output)

        return jax.grad(loss, has_aux=True)(params)

    state = nnx.split(filled, nnx.Param, ...)[1:]
    gradients, (half, output) = run(jnp.bfloat16, *state)
    _, (_, exact) = run(jnp.float32, *state)
    assert half.dtype == jnp.bfloat16
    assert {x.dtype for x in (output.logits, *output.aux)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype(jnp.float32)}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert np.abs(output.logits - exact.logits).max() < 0.1 * np.abs(exact.logits).max()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("setr", {"num_classes": 256}, "'num_classes' is 256, expected 1 to 255"),
        ("setr", {"channels": 0}, "'channels' is 0, expected at least 1"),
        ("setr", {"kernel_size": 2}, "'kernel_size' is 2, expected an odd number"),
        ("setr", {"scales": (2, 0)}, r"'scales' is \(2, 0\), expected whole numbers from 1 on"),
        ("setr_mla", {"scales": (2, 2)}, r"'scales' is \(2, 2\), expected one number"),
        ("setr", {"aux_inputs": (4,)}, r"'aux_inputs' is \(4,\), .* as the encoder returns 4"),
        ("setr", {"aux_inputs": (0,)}, r"'aux_weights' is .*, expected 1 values"),
        ("setr", {"norm_eps": 0.0}, "'norm_eps' is 0.0, expected above 0"),
    ],
)
def test_bad_values_are_named(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        models.get_config(name, **changes)
