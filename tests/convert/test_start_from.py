"""A training starts from any checkpoint, and says what it takes over and what not."""

import numpy as np
import pytest

import convert
from convert.parity.networks import small_config
from convert.parity.runs import random_state
from convert.start import resize_table
from flaxseg import models, native
from flaxseg.errors import CheckpointError
from flaxseg.labels import LabelSet
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


def named(*names: str) -> LabelSet:
    return LabelSet("named", names, LabelSet.generic(len(names)).palette)


BLOCKS = {"bisenetv2": 1, "ccnet_r50": 1, "vitseg": 64}
"""Rows of a classifier that each class has."""


@pytest.mark.parametrize("name", BLOCKS)
def test_classes_of_the_same_name_keep_their_rows(name, tmp_path):
    config, block = small_config(name), BLOCKS[name]
    names = [f"thing {i}" for i in range(config.num_classes)]
    names[1], names[3] = "Side-Walk", "tree, plant"
    model = random_model(config)
    native.save(model, tmp_path / "model", labels=named(*names))
    labels = named("tree", "water", "side walk")
    start = convert.start_from(str(tmp_path / "model"), other_classes(config, 3), labels)
    assert "2 of 3 classes taken over by name: tree, side walk" in start.lines
    assert "random numbers for water" in start.lines
    assert not any(line.startswith("random numbers in ") for line in start.lines)
    state = native.state_dict(model)
    heads = ("head", "aux_head")
    classifiers = {key for key in state if key.startswith(heads) and key in start.known}
    assert classifiers == start.known.keys() and len(classifiers) >= 2
    for key in classifiers:
        array, known = start.arrays[key], start.known[key]
        tree, water, walk = np.split(array, 3)
        np.testing.assert_array_equal(tree, state[key][3 * block : 4 * block])
        np.testing.assert_array_equal(walk, state[key][block : 2 * block])
        assert not water.any() and [part.all() for part in np.split(known, 3)] == [1, 0, 1]
        assert not np.split(known, 3)[1].any()
    assert same_tensors(start._replace(arrays={k: start.arrays[k] for k in start.whole}), model)


def test_classes_in_another_order_are_not_mixed_up(tmp_path):
    model = random_model(other_classes(small_config("vitseg"), 3))
    native.save(model, tmp_path / "model", labels=named("a", "b", "c"))
    start = convert.start_from(str(tmp_path / "model"), model.config, named("c", "a", "b"))
    rows = np.split(native.state_dict(model)["head.weight"], 3)
    np.testing.assert_array_equal(start.arrays["head.weight"], np.concatenate(rows[2:] + rows[:2]))
    assert "3 of 3 classes taken over by name: c, a, b" in start.lines
    for other in (named("A", "b", "C"), named("x", "y", "z"), LabelSet.generic(3), None):
        start = convert.start_from(str(tmp_path / "model"), model.config, other)
        assert same_tensors(start, model) == set() and not start.known


def test_names_in_a_file_of_mmsegmentation(tmp_path):
    model = random_model(other_classes(small_config("ccnet_r50"), 3))
    layout = convert.load_format("mmseg", "ccnet")
    meta = {"CLASSES": ["road", "sky", "car"], "PALETTE": [[0, 0, 0]] * 3}
    convert.write(tmp_path / "a.pth", layout.export_state(model), wrapper=layout.wrapper, meta=meta)
    labels = named("sky", "car")
    start = convert.start_from(str(tmp_path / "a.pth"), other_classes(model.config, 2), labels)
    assert "2 of 2 classes taken over by name: sky, car" in start.lines
    wanted = native.state_dict(model)["aux_head.classifier.weight"][1:]
    np.testing.assert_array_equal(start.arrays["aux_head.classifier.weight"], wanted)


def test_a_run_without_a_model(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="has no model yet: a run writes it at its first ev"):
        convert.start_from(str(tmp_path), small_config("vitseg"))


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
