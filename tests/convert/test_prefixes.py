"""Keys that wrappers and surrounding modules have changed are those of the bare network again."""

import numpy as np
import pytest

import convert
from convert.load import read_native
from convert.parity import goldens
from convert.parity.networks import small_config
from convert.parity.runs import random_state
from convert.prefixes import majority_prefixes, shared_prefix
from convert.wrappers import without_words
from flaxseg import models, native
from flaxseg.errors import CheckpointError

NETWORKS = {
    "mmseg": small_config("ccnet_r50"),
    "nvlabs": small_config("segformer_b0"),
    "notebook": models.get_config("vitseg", width=24, depth=1, mlp_dim=24),
}


def published(origin: str) -> tuple[models.Model, dict[str, np.ndarray]]:
    config = NETWORKS[origin]
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    layout = convert.load_format(origin, models.architecture_of(config))
    return model, layout.export_state(model)


def check_same(arrays, model: models.Model):
    expected = native.state_dict(model)
    assert arrays.keys() == expected.keys()
    assert all(np.array_equal(arrays[key], array) for key, array in expected.items())


@pytest.mark.parametrize(
    "name",
    [
        "coincheung_bisenetv2",
        "fudan_setr_pup",
        "hf5_segformer_b0",
        "tutorial_bisenetv2",
        "hf_mit_b0",
    ],
)
@pytest.mark.parametrize("prefix", ["1.", "trainer.model.net."])
def test_every_format_is_found_below_a_prefix(name, prefix):
    shapes = dict(goldens.load_keys(name).shapes)
    assert shared_prefix({prefix + key: shape for key, shape in shapes.items()}) == prefix


@pytest.mark.parametrize("origin", NETWORKS)
@pytest.mark.parametrize("prefix", ["model.", "module._orig_mod.", "student.backbone_net."])
def test_prefixes_of_whole_networks(origin, prefix, tmp_path):
    model, state = published(origin)
    convert.write(tmp_path / "x.pth", {prefix + key: array for key, array in state.items()})
    arrays, report = read_native(tmp_path / "x.pth", format=origin)
    check_same(arrays, model)
    assert "".join(report.taken_off) == prefix
    assert f"taken off  {' > '.join(report.taken_off)}" in str(report)


INSIDE = {
    "mmseg": {"backbone.": "backbone._orig_mod.", "decode_head.": "decode_head.module."},
    "nvlabs": {".attn.": "._checkpoint_wrapped_module.attn.", "backbone.": "backbone.module."},
}


@pytest.mark.parametrize("origin", ["mmseg", "nvlabs"])
def test_wrappers_of_parts(origin, tmp_path):
    model, state = published(origin)
    for plain, wrapped in INSIDE[origin].items():
        state = {key.replace(plain, wrapped): array for key, array in state.items()}
    assert any("module" in key or "_orig_mod" in key for key in state)
    convert.write(tmp_path / "x.safetensors", {f"net.{k}": array for k, array in state.items()})
    arrays, report = read_native(tmp_path / "x.safetensors")
    check_same(arrays, model)
    assert report.taken_off[0] == "net." and len(report.taken_off) == 3


@pytest.mark.parametrize("origin", ["torchvision", "nvlabs", "timm"])
@pytest.mark.parametrize("prefix", ["backbone.", "_forward_module.encoder.net."])
def test_prefixes_of_encoders(origin, prefix, tmp_path):
    vit = {"width": 128, "num_heads": 2}
    name, architecture, overrides = {
        "torchvision": ("ccnet", "resnet", {}),
        "nvlabs": ("segformer_b1", "mit", {}),
        "timm": ("vitseg", "vitseg", vit),
    }[origin]
    config = models.override(small_config(name), overrides)
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    state = convert.load_format(origin, architecture).export_state(model)
    convert.write(tmp_path / "x.pth", {prefix + key: array for key, array in state.items()})
    start = convert.start_from(str(tmp_path / "x.pth"), config)
    expected = native.state_dict(model)
    assert start.arrays and all(np.array_equal(a, expected[k]) for k, a in start.arrays.items())
    assert any(line.startswith("taken off") and prefix[-4:] in line for line in start.lines)
    with pytest.raises(CheckpointError, match="holds an encoder alone"):
        convert.load(tmp_path / "x.pth")


def test_an_encoder_with_the_keys_of_a_network_that_has_no_head():
    shapes = dict(goldens.load_keys("torchvision_resnet50").shapes)
    below = {f"backbone.{key}": shape for key, shape in shapes.items()}
    assert shared_prefix(below) == "backbone."


@pytest.mark.parametrize("name", ["notebook_vit_pets", "hf_segformer_b0", "mmseg_segformer_b0"])
def test_first_parts_that_belong_to_the_format_stay(name):
    assert shared_prefix(dict(goldens.load_keys(name).shapes)) == ""


def test_two_keys_that_become_one(tmp_path):
    _, state = published("nvlabs")
    key = "decode_head.linear_pred.bias"
    state = {f"net.{k}": a for k, a in state.items()} | {key: state[key]}
    convert.write(tmp_path / "x.pth", state)
    with pytest.raises(CheckpointError, match=rf"x\.pth: net\.{key} and {key} are both {key}"):
        convert.load(tmp_path / "x.pth")


def test_majorities():
    assert majority_prefixes([]) == []
    assert majority_prefixes(["a.x", "b.x"]) == [""]
    assert majority_prefixes(["a.b.x", "a.b.y", "a.c.z", "d"]) == ["", "a."]
    assert majority_prefixes(["a.b.x.v", "a.b.y.w", "a.b.z.w"]) == ["", "a.", "a.b."]


def test_words_alone_are_taken_off():
    names = without_words(
        ["module", "a.module", "x.module.y", "modules.z", "_orig_mod._orig_mod.w"]
    )
    assert list(names.values()) == ["module", "a.module", "x.y", "modules.z", "w"]
