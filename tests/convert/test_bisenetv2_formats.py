"""The published layouts of BiSeNetV2; their goldens are compared with the others."""

import numpy as np
import pytest

import convert
import torch_ref
from convert.formats.bisenetv2 import FREE_FIELDS
from convert.parity.goldens import load_keys
from convert.rules import Rule
from flaxseg import models, native
from flaxseg.errors import CheckpointError
from flaxseg.models.bisenetv2_branches import BranchesConfig

VARIANTS = {
    "tutorial": "bisenetv2",
    "mmseg": "bisenetv2_mmseg",
    "coincheung": "bisenetv2_coincheung",
}
SMALL = {
    "num_classes": 3,
    "backbone.detail_channels": (4, 4, 6),
    "backbone.detail_layers": (1, 2, 1),
    "backbone.semantic_channels": (4, 4, 6, 6),
    "backbone.semantic_layers": (1, 1, 2),
    "backbone.expansion": 2,
    "head_channels": 6,
    "aux_channels": (3, 4, 5, 6),
}


def small(name: str, **overrides) -> torch_ref.BiSeNetV2:
    return torch_ref.create_model(name, **{**SMALL, **overrides})


def load(name: str) -> convert.Format:
    return convert.load_format(name, "bisenetv2")


@pytest.mark.parametrize("name", VARIANTS)
def test_every_rule_is_used(name):
    format_ = load(name)
    leaves = native.leaves(models.abstract_model(models.get_config(VARIANTS[name])))
    unused = [
        str(rule)
        for rule in format_.rules
        if isinstance(rule, Rule)
        and not any(t.match(key) is not None for t in rule.native for key in leaves)
    ]
    assert unused == []


def test_free_fields_exist():
    fields = {f"backbone.{name}" for name in BranchesConfig.__dataclass_fields__}
    fields |= set(models.BiSeNetV2Config.__dataclass_fields__)
    assert fields >= FREE_FIELDS


@pytest.mark.parametrize("name", ["mmseg", "coincheung"])
def test_files_of_networks_without_auxiliary_heads(name):
    config = models.get_config(VARIANTS[name], aux_channels=(), aux_weights=())
    table = load(name).table(models.abstract_model(config))
    whole = load_keys(f"{name}_bisenetv2").shapes
    kept = {key: shape for key, shape in whole.items() if not key.startswith("aux")}
    assert len(kept) < len(whole)
    assert list(table.foreign_shapes.items()) == list(kept.items())


def test_the_head_is_stored_twice():
    source, target = small("bisenetv2"), small("bisenetv2")
    foreign = load("tutorial").export_state(source)
    twins = {key: key.replace("seg_head_aggre", "seg_heads.0") for key in foreign if "aggre" in key}
    assert len(twins) == 9
    for first, second in twins.items():
        np.testing.assert_array_equal(foreign[first], foreign[second])
    foreign["seg_heads.0.cls_seg.3.bias"] = foreign["seg_heads.0.cls_seg.3.bias"] + 1
    with pytest.raises(CheckpointError, match="seg_head_aggre.cls_seg.3.bias, .* values differ"):
        load("tutorial").import_state(foreign, target)


@pytest.mark.parametrize("fusion", ["sum", "product", "matmul"])
def test_the_tutorial_stores_every_fusion(fusion):
    source, target = small("bisenetv2", fusion=fusion), small("bisenetv2", fusion=fusion)
    load("tutorial").import_state(load("tutorial").export_state(source), target)
    for ours, theirs in zip(source.parameters(), target.parameters(), strict=True):
        assert ours.equal(theirs)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("tutorial", {"align_corners": False}, "align_corners is False, there True"),
        ("mmseg", {"upsampling": "nearest"}, "upsampling is 'nearest', there 'bilinear'"),
        ("coincheung", {"upsampling": "bilinear"}, "upsampling is 'bilinear', there 'nearest'"),
        ("coincheung", {"gate_bias": True}, "gate_bias is True, there False"),
    ],
)
def test_another_function_is_refused_though_keys_fit(name, overrides, message):
    with pytest.raises(CheckpointError, match=message):
        load(name).export_state(small(VARIANTS[name], **overrides))


@pytest.mark.parametrize("name", VARIANTS)
def test_other_origins_are_refused(name):
    for other in VARIANTS.keys() - {name}:
        with pytest.raises(CheckpointError, match="which compute"):
            load(other).export_state(small(VARIANTS[name]))
