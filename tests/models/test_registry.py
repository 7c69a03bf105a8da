import functools
import json

import jax
import numpy as np
import pytest
from flax import nnx

from convert.parity.networks import COMPARISONS, small_config
from flaxseg import models, native
from flaxseg.errors import ConfigError
from flaxseg.models import registry

FC = 2048 * 1000 + 1000
"""Parameters of the ImageNet classifier that the tutorial's checkpoint carries and never uses."""


@pytest.mark.parametrize(
    ("name", "num_classes", "published"),
    [
        ("ccnet", 33, 49_497_290 - FC),
        ("ccnet_r50", 19, 49_826_055),
        ("ccnet_r101", 19, 68_818_183),
        ("ccnet_r101_original", 19, 71_287_911),
    ],
)
def test_parameter_count_is_the_published_one(name, num_classes, published):
    model = models.abstract_model(models.get_config(name, num_classes=num_classes))
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(np.prod(leaf.shape, dtype=int) for leaf in leaves) == published


def test_lists_models_by_pattern():
    assert set(models.list_models()) >= {"ccnet", "ccnet_r50", "ccnet_r101"}
    assert models.list_models("ccnet_r*") == ["ccnet_r101", "ccnet_r101_original", "ccnet_r50"]


@pytest.mark.parametrize("name", models.list_models())
def test_config_survives_json(name):
    config = models.get_config(name, **{**COMPARISONS[name].overrides, "num_classes": 7})
    values = json.loads(json.dumps(models.config_to_json(config)))
    assert models.config_from_json(values) == config
    assert config.num_classes == 7


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("ccnt", {}, "no network is called 'ccnt'; did you mean ccnet"),
        ("ccnet", {"chanels": 8}, "CCNetConfig has no field 'chanels'; did you mean channels"),
        ("ccnet", {"backbone.wdth": 8}, "no field 'backbone.wdth'; did you mean backbone.width"),
        ("ccnet", {"activation": "gelu"}, "'activation' is 'gelu', expected one of"),
        ("ccnet", {"channels": "many"}, "'channels' is 'many', expected int"),
        ("ccnet", {"backbone.blocks": (1, "2")}, r"'backbone.blocks\[1\]' is '2', expected int"),
        ("ccnet", {"backbone": 3}, "'backbone' is 3, expected ResNetConfig"),
        ("ccnet", {"backbone": 3, "backbone.width": 8}, "'backbone' is given both whole and in"),
        ("ccnet", {"backbone.blocks": (1, 1, 1)}, r"'strides' is .*, expected one value a stage"),
        ("ccnet", {"backbone.strides": (1, 2, 2)}, r"'strides' is \(1, 2, 2\), expected one value"),
        (
            "ccnet",
            {"backbone.dilations": (1, 1, 0, 1)},
            "'dilations' is .*, expected whole numbers",
        ),
        ("ccnet", {"backbone.width": 0}, "'width' is 0, expected at least 1"),
        ("ccnet", {"backbone.stem_channels": ()}, r"'stem_channels' is \(\), expected whole"),
        ("ccnet", {"backbone.strides": (1, 2, 2, 1)}, "'upsample' is 'x8', expected 'image'"),
        ("ccnet", {"num_classes": 256}, "'num_classes' is 256, expected 1 to 255"),
        ("ccnet", {"channels": 4}, "'channels' is 4, expected reduction or more"),
        ("ccnet", {"reduction": 0}, "'reduction' is 0, expected at least 1"),
        ("ccnet", {"recurrence": 0}, "'recurrence' is 0, expected at least 1"),
        ("ccnet", {"dropout": 1}, "'dropout' is 1.0, expected 0 to below 1"),
        ("ccnet", {"aux_channels": 8}, r"'aux_weights' is \(\), expected 1 values"),
        ("ccnet_r50", {"aux_channels": 0}, r"'aux_weights' is \(0.4,\), expected 0 values"),
    ],
)
def test_bad_names_and_values_are_named(name, overrides, message):
    with pytest.raises(ConfigError, match=message):
        models.get_config(name, **overrides)


@pytest.mark.parametrize("name", models.list_models())
def test_a_variant_is_known_by_its_name_at_any_class_count(name):
    config = models.get_config(name, num_classes=7, remat=True)
    # What differs in nothing but the class count is the first of its name.
    assert models.get_config(models.name_of(config), num_classes=7, remat=True) == config
    small = small_config(name)
    assert models.name_of(small) == models.architecture_of(small)


@pytest.mark.parametrize("name", ["setr", "setr_pup_original", "vitseg"])
def test_a_variant_is_known_by_its_name_at_any_image_size(name):
    config = models.get_config(name).with_image_size((64, 96))
    assert models.name_of(config) == name
    odd_patches = {"setr": "backbone.patch_size", "vitseg": "patch_size"}
    field = odd_patches[models.architecture_of(config)]
    assert models.name_of(models.override(config, {field: 2})) == models.architecture_of(config)


class OneByOne:
    """Keys that are asked one after the other, each for a draw that begins with what is wanted."""

    def __init__(self, rngs):
        self.rngs = rngs

    def params(self):
        key = self.rngs.params()

        def numbers(draw):
            long = long_draw(draw._replace(shape=(2**17,)), key)
            return np.asarray(long)[: draw.size].reshape(draw.shape)

        return numbers


@functools.partial(jax.jit, static_argnums=0)
def long_draw(draw, key):
    return draw(key)


@pytest.mark.parametrize("name", ["bisenetv2", "ccnet", "segformer", "setr", "vitseg"])
def test_weights_drawn_by_one_program_are_those_of_the_same_keys(name):
    config = small_config(name)
    rngs, same = nnx.Rngs(3), nnx.Rngs(3)
    drawn = native.state_dict(models.fresh_model(config, rngs=rngs))
    constructor = registry.ARCHITECTURES[name].model
    one_by_one = native.state_dict(constructor(config, rngs=OneByOne(same)))
    assert drawn.keys() == one_by_one.keys()
    for key, array in one_by_one.items():
        np.testing.assert_allclose(drawn[key], array, rtol=1e-6, atol=0, err_msg=key)
    assert rngs.params() == same.params()


def test_a_model_can_be_made_inside_a_program():
    traced = nnx.eval_shape(lambda: models.create_model("vitseg", rngs=nnx.Rngs(0)))
    assert isinstance(traced, models.ViTSeg)


def test_a_deeper_network_is_drawn_by_no_more_loops():
    def draws(depth):
        config = models.override(small_config("vitseg"), {"depth": depth})
        program = jax.make_jaxpr(
            lambda: nnx.state(models.build(config, rngs=models.params_keys(0)))
        )()
        return str(program).count("random_bits[")

    assert 0 < draws(1) == draws(4)


def test_dotted_and_nested_overrides_are_the_same():
    dotted = models.get_config("ccnet", **{"backbone.width": 8, "backbone.stem_channels": (4,)})
    nested = models.get_config("ccnet", backbone={"width": 8, "stem_channels": [4]})
    assert dotted == nested


def test_unknown_architecture_is_named():
    with pytest.raises(ConfigError, match="architecture 'ccnett' is unknown; did you mean ccnet"):
        models.config_from_json({"architecture": "ccnett"})
