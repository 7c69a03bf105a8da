"""Checkpoints become networks and files again, with everything that came along."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from flax import nnx
from jax import numpy as jnp

import convert
import flaxseg
from convert.formats import load_format
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.labels import LabelSet

TINY = {
    "ccnet_r50": {
        "num_classes": 3,
        "backbone.width": 4,
        "backbone.blocks": (1, 1, 1, 1),
        "backbone.stem_channels": (2, 2, 4),
        "channels": 8,
        "aux_channels": 4,
    },
    "segformer_b0": {
        "num_classes": 3,
        "backbone.widths": (4, 8, 10, 16),
        "backbone.depths": (1, 1, 1, 1),
        "channels": 8,
    },
}
CLASSES = ("sky", "road", "tree")
PALETTE = ((1, 2, 3), (4, 5, 6), (7, 8, 9))


def tiny(name: str, **overrides) -> models.Model:
    family = "segformer_b0" if name.startswith("segformer") else "ccnet_r50"
    config = models.get_config(name, **{**TINY[family], **overrides})
    return native.fill(models.abstract_model(config), random_state(config, 0))


def logits(model: models.Model) -> np.ndarray:
    images = jnp.asarray(np.random.default_rng(1).standard_normal((1, 64, 64, 3)), jnp.float32)
    return np.asarray(forward(models.eval_view(model), images))


@nnx.jit
def forward(model: models.Model, images):
    return model(images).logits


def foreign(model: models.Model, origin: str) -> dict[str, np.ndarray]:
    """As the peer stores it, with random numbers in what the network does not use."""
    layout = load_format(origin, models.architecture_of(model.config))
    rng = np.random.default_rng(2)
    spares = {
        key: rng.integers(9, size=spare.shape).astype(spare.dtype)
        for key, spare in layout.table(model).spares.items()
    }
    return layout.export_state(model, spares)


@pytest.fixture(scope="module")
def ccnet():
    return tiny("ccnet_r50")


@pytest.fixture(scope="module")
def segformer():
    return tiny("segformer_b0")


def test_a_file_of_mmsegmentation(ccnet, tmp_path):
    tensors = {k: torch.from_numpy(np.array(a)) for k, a in foreign(ccnet, "mmseg").items()}
    meta = {"CLASSES": CLASSES, "PALETTE": [list(c) for c in PALETTE], "epoch": 3}
    torch.save({"meta": meta, "state_dict": tensors, "optimizer": {}}, tmp_path / "x.pth")
    model, report = convert.load(tmp_path / "x.pth")
    assert report.format == "mmseg" and report.config == ccnet.config
    assert report.labels.classes == CLASSES and report.labels.palette == PALETTE
    assert report.used + len(report.left_out) == len(tensors)
    assert set(report.left_out.values()) == {"counts training batches"}
    np.testing.assert_array_equal(logits(model), logits(ccnet))


def test_names_of_mmsegmentation_1(ccnet, tmp_path):
    meta = {"dataset_meta": {"classes": list(CLASSES), "palette": [list(c) for c in PALETTE]}}
    convert.write(tmp_path / "x.pth", foreign(ccnet, "mmseg"), wrapper="state_dict", meta=meta)
    labels = convert.load(tmp_path / "x.pth").report.labels
    assert labels.classes == CLASSES and labels.palette == PALETTE


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "a", "b")])
def test_names_that_do_not_fit(ccnet, tmp_path, classes):
    meta = {"CLASSES": classes}
    convert.write(tmp_path / "x.pth", foreign(ccnet, "mmseg"), wrapper="state_dict", meta=meta)
    report = convert.load(tmp_path / "x.pth").report
    if len(classes) == 2:
        assert report.labels == LabelSet.generic(3)
        assert report.notes == ("the file names 2 classes for 3 outputs: numbered instead",)
    else:
        assert report.labels.classes == ("a 0", "a 1", "b")


def test_half_precision_and_a_parallel_prefix(ccnet, tmp_path):
    state = foreign(ccnet, "mmseg")
    tensors = {f"module.{k}": torch.from_numpy(np.array(a)) for k, a in state.items()}
    half = {k: t.half() if t.is_floating_point() else t for k, t in tensors.items()}
    torch.save(half, tmp_path / "x.pth")
    loaded = convert.load(tmp_path / "x.pth")
    assert loaded.report.dtypes == ("float16",)
    for key, array in native.state_dict(loaded.model).items():
        expected = native.state_dict(ccnet)[key].astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(array, expected, err_msg=key)


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("ccnet_r50", "mmseg"),
        ("segformer_b0", "nvlabs"),
        ("segformer_b0_hf", "huggingface"),
        ("segformer_b0_hf", "huggingface5"),
        ("segformer_b0_mmseg", "mmseg"),
        ("segformer", "tutorial"),
    ],
)
def test_the_same_bits_come_back(name, origin, tmp_path):
    model = tiny(name)
    before = foreign(model, origin)
    convert.write(tmp_path / "before.pth", before)
    loaded = convert.load(tmp_path / "before.pth")
    assert (loaded.report.format, loaded.report.config) == (origin, model.config)
    convert.save(loaded, tmp_path / "after.pth", format=origin)
    after = convert.read(tmp_path / "after.pth")
    assert list(after) == list(before)
    assert all(after[key].tobytes() == before[key].tobytes() for key in before)


@pytest.mark.parametrize("kept", [0, 2])
@pytest.mark.parametrize(
    ("name", "origin"),
    [("ccnet_r50", "mmseg"), ("segformer_b0", "nvlabs"), ("segformer_b0_hf", "huggingface")],
)
def test_keys_that_a_file_lacks_are_not_added(name, origin, kept, tmp_path):
    before = foreign(tiny(name), origin)
    unused = load_format(origin, models.architecture_of(tiny(name).config)).table(tiny(name)).spares
    few = [*unused][:kept]
    before = {key: a for key, a in reversed(before.items()) if key not in unused or key in few}
    convert.write(tmp_path / "before.pth", before)
    loaded = convert.load(tmp_path / "before.pth", format=origin)
    for target in ("after.pth", "after.safetensors", "folder"):
        if target == "folder" and origin != "huggingface":
            continue
        convert.save(loaded, tmp_path / target, format=origin)
        path = tmp_path / target
        after = convert.read(path / "model.safetensors" if target == "folder" else path)
        assert after.keys() == before.keys()
        assert list(after) == list(before) or target != "after.pth"
        assert all(after[key].tobytes() == before[key].tobytes() for key in before)
    other = loaded._replace(report=dataclasses.replace(loaded.report, format="elsewhere"))
    convert.save(other, tmp_path / "whole.pth", format=origin)
    assert set(convert.read(tmp_path / "whole.pth")) == set(foreign(tiny(name), origin))


def test_another_network_than_the_file_s_is_written_whole(ccnet, tmp_path):
    bare = tiny("ccnet_r50", aux_channels=0, aux_weights=())
    convert.write(tmp_path / "x.pth", foreign(bare, "mmseg"))
    loaded = convert.load(tmp_path / "x.pth")._replace(model=ccnet)
    convert.save(loaded, tmp_path / "y.pth", format="mmseg")
    assert set(convert.read(tmp_path / "y.pth")) == set(foreign(ccnet, "mmseg"))


def test_the_report_says_how_the_file_was_understood(ccnet, tmp_path):
    state = {
        f"net.{key}": torch.from_numpy(np.array(a)) for key, a in foreign(ccnet, "mmseg").items()
    }
    torch.save({"state_dict": {**state, "loss.weight": torch.ones(3)}}, tmp_path / "x.pth")
    report = convert.load(tmp_path / "x.pth").report
    lines = str(dataclasses.replace(report, others=("ema", "teacher"))).splitlines()
    assert "taken off  state_dict > net." in lines
    assert "others     ema, teacher: --weights chooses them" in lines
    assert any(line.startswith("left out   loss.weight: stands beside") for line in lines)


def test_torch_ref(ccnet, tmp_path):
    convert.save(ccnet, tmp_path / "x.pth", format="torch_ref")
    model, report = convert.load(tmp_path / "x.pth")
    assert report.format == "torch_ref" and report.config == ccnet.config
    np.testing.assert_array_equal(logits(model), logits(ccnet))
    tensors = torch.load(tmp_path / "x.pth")
    import torch_ref

    twin = torch_ref.create_model(ccnet.config)
    assert list(tensors) == list(twin.state_dict())
    twin.load_state_dict(tensors, strict=True)


def test_keys_of_our_own_do_not_tell_an_epsilon(segformer, tmp_path):
    convert.save(segformer, tmp_path / "x.pth", format="torch_ref")
    with pytest.raises(CheckpointError, match=r"x\.pth: the keys fit .* convert import --model"):
        convert.load(tmp_path / "x.pth")
    assert convert.load(tmp_path / "x.pth", model="segformer_b0").model.config == segformer.config


def test_a_model_directory(ccnet, tmp_path):
    labels = LabelSet("mine", CLASSES, PALETTE)
    flaxseg.save(ccnet, tmp_path / "m", labels=labels)
    model, report = convert.load(tmp_path / "m")
    assert report.format == "native" and report.labels == labels
    np.testing.assert_array_equal(logits(model), logits(ccnet))
    with pytest.raises(ConfigError, match="has 3 classes, not 4"):
        convert.load(tmp_path / "m", num_classes=4)
    with pytest.raises(ConfigError, match="not ccnet_r101: leave"):
        convert.load(tmp_path / "m", model="ccnet_r101")


def test_another_number_of_classes(ccnet, tmp_path):
    convert.write(tmp_path / "x.pth", foreign(ccnet, "mmseg"))
    model, report = convert.load(tmp_path / "x.pth", num_classes=7)
    assert model.config.num_classes == 7 and report.labels == LabelSet.generic(7)
    fresh = ("aux_head.classifier.bias", "aux_head.classifier.weight")
    fresh += ("head.classifier.bias", "head.classifier.weight")
    assert sorted(report.fresh) == sorted(fresh)
    assert "3 classes in the file, 7 here" in report.notes and "fresh" in str(report)
    before, after = native.state_dict(ccnet), native.state_dict(model)
    assert all(np.array_equal(after[k], before[k]) for k in before if k not in fresh)
    assert after["head.classifier.weight"].shape[0] == 7 and after["head.classifier.weight"].std()


def test_all_that_does_not_fit_is_named(ccnet, tmp_path):
    state = foreign(ccnet, "mmseg")
    state["decode_head.conv_seg.weights"] = state.pop("decode_head.conv_seg.weight")
    state["backbone.layer1.0.conv1.weight"] = np.zeros((1, 2, 3), np.float32)
    convert.write(tmp_path / "x.pth", state)
    with pytest.raises(CheckpointError) as caught:
        convert.load(tmp_path / "x.pth")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'x.pth'}: format mmseg ccnet: ")
    assert "1 missing: decode_head.conv_seg.weight" in message
    assert "decode_head.conv_seg.weights (near decode_head.conv_seg.weight)" in message
    assert "backbone.layer1.0.conv1.weight: (1, 2, 3), expected (4, 4, 1, 1)" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(ccnet, tmp_path, value):
    state = foreign(ccnet, "mmseg")
    state["backbone.stem.0.weight"] = np.full((2, 3, 3, 3), value, np.float32)
    convert.write(tmp_path / "x.pth", state)
    with pytest.raises(CheckpointError, match=r"1 tensors hold NaN .*: backbone\.stem\.0\.weight;"):
        convert.load(tmp_path / "x.pth")
    assert convert.load(tmp_path / "x.pth", allow_nonfinite=True).report.used


@pytest.mark.parametrize(
    ("dtype", "message"),
    [(np.int8, "1 weights are no floating-point"), (np.complex64, "1 tensors hold no real num")],
)
def test_weights_of_another_kind(ccnet, tmp_path, dtype, message):
    state = foreign(ccnet, "mmseg")
    state["backbone.stem.0.weight"] = np.ones((2, 3, 3, 3), dtype)
    convert.write(tmp_path / "x.pth", state)
    with pytest.raises(CheckpointError, match=message):
        convert.load(tmp_path / "x.pth")


def test_a_hugging_face_folder(tmp_path):
    model = tiny("segformer_b0_hf", **{"backbone.heads": (2, 2, 5, 4)})
    labels = LabelSet("mine", CLASSES, PALETTE)
    convert.save(model, tmp_path / "hf", format="huggingface", labels=labels)
    values = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert values["hidden_sizes"] == [4, 8, 10, 16] and values["id2label"]["1"] == "road"
    loaded = convert.load(tmp_path / "hf")
    assert loaded.model.config.backbone.heads == (2, 2, 5, 4)
    assert loaded.report.labels.classes == CLASSES
    np.testing.assert_array_equal(logits(loaded.model), logits(model))
    with pytest.raises(CheckpointError, match="hf exists: choose another folder"):
        convert.save(model, tmp_path / "hf", format="huggingface")
    del values["id2label"]["2"]
    (tmp_path / "hf" / "config.json").write_text(json.dumps(values))
    report = convert.load(tmp_path / "hf").report
    assert report.labels == LabelSet.generic(3)
    assert report.notes[-1] == "id2label names 2 classes for 3 outputs: numbered instead"


def test_files_of_several_parts(segformer, tmp_path):
    state = foreign(segformer, "nvlabs")
    keys = list(state)
    parts = {"a.safetensors": keys[::2], "b.safetensors": keys[1::2]}
    for name, part in parts.items():
        convert.write(tmp_path / name, {key: state[key] for key in part})
    places = {key: name for name, part in parts.items() for key in part}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {key: places[key] for key in keys}}))
    model, report = convert.load(tmp_path)
    assert report.format == "nvlabs"
    np.testing.assert_array_equal(logits(model), logits(segformer))

    index.write_text(json.dumps({"weight_map": {**places, "more": "a.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"1 tensors that are not there: more \(a\.saf"):
        convert.load(index)
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(CheckpointError, match="no file beside it"):
        convert.load(index)
    index.write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        convert.load(index)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match="folder without weights: expected one of model.saf"):
        convert.load(tmp_path)


def test_a_layout_that_does_not_store_the_network(ccnet, tmp_path):
    with pytest.raises(CheckpointError, match="format tutorial ccnet stores ccnet, which compute"):
        convert.save(ccnet, tmp_path / "x.pth", format="tutorial")
    with pytest.raises(ConfigError, match="no format is called nvlabs ccnet"):
        convert.save(ccnet, tmp_path / "x.pth", format="nvlabs")
    assert list(tmp_path.iterdir()) == []


def test_the_report_is_a_short_table(segformer, tmp_path):
    convert.write(tmp_path / "x.pth", foreign(segformer, "nvlabs"))
    text = str(convert.load(tmp_path / "x.pth").report)
    assert "nvlabs: The SegFormer" in text or "format     nvlabs: " in text
    assert "decode_head.conv_seg.weight, decode_head.conv_seg.bias: " in text
    assert "non-commercial" in text and len(text.splitlines()) < 12


def test_train_mode_is_off(ccnet, tmp_path):
    convert.write(tmp_path / "x.pth", foreign(ccnet, "mmseg"))
    model = convert.load(tmp_path / "x.pth").model
    before = native.state_dict(model)
    forward(model, jnp.ones((1, 32, 32, 3)))
    after = native.state_dict(model)
    assert all(np.array_equal(before[key], after[key]) for key in before)
    assert isinstance(model, nnx.Module)
