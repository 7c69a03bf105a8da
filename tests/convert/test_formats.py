"""Formats refuse what they cannot hold."""

import numpy as np
import pytest
import torch

import convert
import torch_ref
from convert import bridge
from convert.formats.ccnet import FREE_FIELDS
from convert.rules import Rule
from flaxseg import models, native
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.model_dir import COUNTER

SMALL = {"num_classes": 3, "backbone.width": 2, "backbone.blocks": (1, 1, 1, 1), "channels": 8}


def small(name="ccnet", **overrides):
    return torch_ref.create_model(name, **{**SMALL, **overrides})


def test_unknown_format_lists_the_known():
    with pytest.raises(ConfigError, match="caffe ccnet; known: .*mmseg ccnet, "):
        convert.load_format("caffe", "ccnet")


@pytest.mark.parametrize("name", ["tutorial", "mmseg", "original"])
def test_every_rule_is_used(name):
    format_ = convert.load_format(name, "ccnet")
    used = set()
    for variant in format_.variants:
        leaves = native.leaves(models.abstract_model(models.get_config(variant)))
        for rule in format_.rules:
            templates = rule.native if isinstance(rule, Rule) else ()
            if any(t.match(key) is not None for t in templates for key in leaves):
                used.add(rule)
    assert used == {rule for rule in format_.rules if isinstance(rule, Rule)}


def test_another_function_is_refused_though_keys_fit():
    with pytest.raises(
        CheckpointError, match="stores ccnet, .* align_corners is False, there True"
    ):
        convert.load_format("tutorial", "ccnet").export_state(small(align_corners=False))


def test_another_network_is_refused():
    with pytest.raises(CheckpointError, match="stores ccnet_r50 and ccnet_r101, which compute"):
        convert.load_format("mmseg", "ccnet").export_state(small())


def test_free_fields_exist():
    fields = {f"backbone.{name}" for name in models.ResNetConfig.__dataclass_fields__}
    fields |= set(models.CCNetConfig.__dataclass_fields__)
    assert fields >= FREE_FIELDS


def test_a_file_that_does_not_fit_leaves_the_model_alone():
    format_, model = convert.load_format("tutorial", "ccnet"), small()
    foreign = format_.export_state(model)
    before = bridge.state_dict(model)
    foreign["decode_head.CCA.gama"] = foreign.pop("decode_head.CCA.gamma") + 1
    foreign["backbone.conv1.weight"] = np.zeros((1, 2, 3, 4), np.float32)
    with pytest.raises(CheckpointError) as caught:
        format_.import_state(foreign, model)
    message = str(caught.value)
    assert "format tutorial ccnet" in message
    assert "1 missing: decode_head.CCA.gamma" in message
    assert "decode_head.CCA.gama (near decode_head.CCA.gamma)" in message
    assert "backbone.conv1.weight: (1, 2, 3, 4), expected (64, 3, 7, 7)" in message
    after = bridge.state_dict(model)
    assert all(after[key].tobytes() == before[key].tobytes() for key in before)


def test_files_without_counters_and_fc_are_taken():
    format_, source, target = convert.load_format("tutorial", "ccnet"), small(), small()
    foreign = format_.export_state(source)
    kept = {k: a for k, a in foreign.items() if "num_batches" not in k and ".fc." not in k}
    assert format_.import_state(kept, target).left_out == {}
    assert (
        format_.import_state(foreign, target).left_out["backbone.fc.bias"] == "classifies ImageNet"
    )


def test_a_published_file_comes_back_bit_for_bit(tmp_path):
    mmseg = convert.load_format("mmseg", "ccnet")
    sizes = {**SMALL, "aux_channels": 8, "backbone.stem_channels": (2, 2, 4)}
    twin = small("ccnet_r50", **sizes)
    model = models.abstract_model(twin.config)
    published = mmseg.export_state(twin)
    counters = [key for key in published if key.endswith(COUNTER)]
    published |= {key: np.array(1000 + n) for n, key in enumerate(counters)}
    convert.write(tmp_path / "published.pth", published, wrapper=mmseg.wrapper)

    imported = mmseg.import_state(convert.read(tmp_path / "published.pth"), model)
    back = mmseg.export_state(model, imported.spares)
    convert.write(tmp_path / "back.pth", back, wrapper=mmseg.wrapper)

    before, after = (torch.load(tmp_path / f"{name}.pth") for name in ("published", "back"))
    assert list(after) == list(before) == ["state_dict"]
    before, after = before["state_dict"], after["state_dict"]
    assert list(after) == list(before)
    for key, tensor in before.items():
        assert after[key].dtype == tensor.dtype and torch.equal(after[key], tensor), key
    assert after["backbone.stem.1.num_batches_tracked"] == 1000
