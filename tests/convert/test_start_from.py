"""A training starts from any checkpoint, and says what it takes over and what not."""

import numpy as np
import pytest

import convert
from convert.parity.networks import small_config
from convert.parity.runs import random_state
from convert.start import resize_table
from flaxseg import models, native
from flaxseg.errors import CheckpointError
from flaxseg.preprocess import Preprocess


def random_model(config: models.Config) -> models.Model:
    return native.fill(models.abstract_model(config), random_state(config, 0))


def write(path, origin: str, architecture: str, model: models.Model) -> str:
    layout = convert.load_format(origin, architecture)
    convert.write(path, layout.export_state(model), wrapper=layout.wrapper)
    return str(path)


def same_tensors(start, model: models.Model) -> set[str]:
    state = native.state_dict(model)
    assert all(np.array_equal(start.arrays[key], state[key]) for key in start.arrays)
    return state.keys() - start.arrays.keys()


def other_classes(config: models.Config, count: int = 7) -> models.Config:
    return models.override(config, {"num_classes": count})


def test_whole_network_with_other_classes(tmp_path):
    model = random_model(small_config("ccnet_r50"))
    source = write(tmp_path / "a.pth", "mmseg", "ccnet", model)
    assert same_tensors(convert.start_from(source, model.config), model) == set()
    start = convert.start_from(source, other_classes(model.config))
    classifiers = {"head.classifier", "aux_head.classifier"}
    fresh = {f"{name}.{leaf}" for name in classifiers for leaf in ("weight", "bias")}
    assert same_tensors(start, model) == fresh
    text = "\n".join(start.lines)
    assert f"starts from {source}" in text and "mmsegmentation ccnet_r50-d8" in text
    assert all(key in text for key in fresh)


def test_model_directory_and_work_directory(tmp_path):
    model = random_model(small_config("bisenetv2"))
    bgr = Preprocess(channels="bgr")
    native.save(model, tmp_path / "run" / "model", preprocess=bgr)
    for source in (tmp_path / "run" / "model", tmp_path / "run"):
        start = convert.start_from(str(source), model.config)
        assert same_tensors(start, model) == set() and "format native, bisenetv2" in start.lines
        assert start.preprocess == bgr and start.report(bgr) == start.lines
        told = start.report(Preprocess(mean=(0.5, 0.5, 0.5)))[-1]
        assert "--mean 0.485 0.456 0.406 --channels bgr, those of this run --mean 0.5" in told


def test_auxiliary_heads_may_be_missing_or_too_many(tmp_path):
    whole = random_model(small_config("ccnet_r50"))
    bare = random_model(models.override(whole.config, {"aux_channels": 0, "aux_weights": ()}))
    for theirs, ours in ((whole, bare), (bare, whole)):
        native.save(theirs, tmp_path / "model")
        start = convert.start_from(str(tmp_path / "model"), ours.config)
        fresh = native.leaves(ours).keys() - start.arrays.keys()
        assert fresh == native.leaves(ours).keys() - native.leaves(theirs).keys()


def test_positions_of_another_size_are_resized_and_that_is_said(tmp_path):
    model = random_model(small_config("setr_pup_original"))
    native.save(model, tmp_path / "model")
    wider = models.override(model.config, {"backbone.image_size": (32, 80)})
    start = convert.start_from(str(tmp_path / "model"), wider)
    table = native.state_dict(model)["backbone.pos_embed"]
    found = start.arrays.pop("backbone.pos_embed")
    assert found.shape == (1, 1 + 4 * 10, 32) and np.array_equal(found[:, 0], table[:, 0])
    assert same_tensors(start, model) == {"backbone.pos_embed"}
    assert "backbone.pos_embed resized from 4x6 to 4x10 patches, bilinear" in start.lines


def test_resized_table_is_torchs():
    import torch

    table = np.random.default_rng(0).standard_normal((1, 13, 5)).astype(np.float32)
    image = torch.from_numpy(table[:, 1:].reshape(1, 3, 4, 5).transpose(0, 3, 1, 2).copy())
    wanted = torch.nn.functional.interpolate(image, (5, 7), mode="bilinear", align_corners=False)
    found = resize_table(table, (3, 4), (5, 7))
    expected = wanted.numpy().transpose(0, 2, 3, 1).reshape(1, 35, 5)
    np.testing.assert_allclose(found[:, 1:], expected, atol=1e-6)
    np.testing.assert_array_equal(resize_table(table[0, 1:], (3, 4), (5, 7)), found[0, 1:])


SETR = {"backbone.width": 128, "backbone.num_heads": 2, "backbone.head_dim": 0}
ENCODERS = {
    "torchvision": ("resnet", "ccnet", {}, "backbone."),
    "mmseg resnet": ("resnet", "ccnet_r50", {}, "backbone."),
    "mmseg": ("mit", "segformer_b0_mmseg", {}, "backbone."),
    "nvlabs": ("mit", "segformer_b1", {}, "backbone."),
    "huggingface": ("mit", "segformer_b0_hf", {}, "backbone."),
    "timm": ("vit", "setr_pup_original", SETR, "backbone."),
    "timm vitseg": (
        "vitseg",
        "vitseg",
        {"width": 128, "num_heads": 2},
        ("pos_embed", "patch_embed.", "blocks."),
    ),
}


@pytest.mark.parametrize("case", ENCODERS)
def test_encoder_alone(case, tmp_path):
    architecture, name, overrides, scope = ENCODERS[case]
    model = random_model(models.override(small_config(name), overrides))
    source = write(tmp_path / "encoder.pth", case.split()[0], architecture, model)
    start = convert.start_from(source, other_classes(model.config))
    assert same_tensors(start, model) == {
        key for key in native.leaves(model) if not key.startswith(scope)
    }
    assert f"format {case.split()[0]} {architecture}: " in "\n".join(start.lines)
    half = (0.5, 0.5, 0.5)
    assert start.preprocess == (Preprocess(half, half) if "timm" in case else Preprocess())


def test_encoder_for_another_size(tmp_path):
    model = random_model(
        models.override(
            small_config("vitseg"), {"width": 128, "num_heads": 2, "image_size": (32, 32)}
        )
    )
    source = write(tmp_path / "vit.pth", "timm", "vitseg", model)
    ours = model.config.with_image_size((40, 24))
    start = convert.start_from(source, ours)
    assert start.arrays["pos_embed"].shape == (15, 128)
    assert "pos_embed resized from 4x4 to 5x3 patches, bilinear" in start.lines


def test_heads_of_another_width_are_refused(tmp_path):
    config = models.override(small_config("vitseg"), {"width": 128, "num_heads": 2})
    source = write(tmp_path / "vit.pth", "timm", "vitseg", random_model(config))
    other = models.override(config, {"num_heads": 8})
    with pytest.raises(CheckpointError, match=r"64 channels.* --override num_heads=2"):
        convert.start_from(source, other)


def test_another_network_is_refused(tmp_path):
    source = str(tmp_path / "model")
    native.save(random_model(small_config("ccnet_r50")), source)
    with pytest.raises(CheckpointError, match="holds ccnet, which computes something else"):
        convert.start_from(source, small_config("setr"))
    with pytest.raises(CheckpointError, match="backbone.ceil_pool is False there and True here"):
        convert.start_from(source, small_config("ccnet_r101_original"))
    wide = models.override(small_config("ccnet_r50"), {"channels": 64})
    with pytest.raises(CheckpointError, match=r"head.conv_in.conv.weight: \(32.*expected \(64"):
        convert.start_from(source, wide)


def test_encoder_of_another_network_is_refused(tmp_path):
    model = random_model(small_config("segformer_b0"))
    source = write(tmp_path / "mit.pth", "nvlabs", "mit", model)
    with pytest.raises(CheckpointError, match="holds an encoder that ccnet does not have"):
        convert.start_from(source, small_config("ccnet_r50"))
    with pytest.raises(CheckpointError, match="unexpected: block3.1"):
        deeper = random_model(small_config("segformer_b2"))
        source = write(tmp_path / "mit2.pth", "nvlabs", "mit", deeper)
        convert.start_from(source, small_config("segformer_b0"))
