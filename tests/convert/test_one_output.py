"""A network with one output becomes the two classes of the same function, in every format."""

import json

import numpy as np
import pytest
import torch

import convert
import torch_ref
from convert import bridge
from convert.__main__ import main
from convert.load import read_native
from convert.one_output import NOTE, to_one_output, to_two_classes, with_classes
from convert.parity.networks import COMPARISONS, small_config
from convert.parity.runs import random_state
from flaxseg import models, native

DISTINCT = [name for name, comparison in COMPARISONS.items() if comparison.distinct]


def outputs(config, arrays, image: np.ndarray) -> list[np.ndarray]:
    """torch_ref's logits and auxiliary ones, in float64."""
    twin = torch_ref.create_model(config).double().eval()
    bridge.fill(twin, {key: np.asarray(array, np.float64) for key, array in arrays.items()})
    with torch.inference_mode():
        output = twin(torch.from_numpy(image), aux=True)
    return [x.numpy() for x in (output.logits, *output.aux)]


@pytest.mark.parametrize("name", DISTINCT)
def test_the_function_is_the_same(name):
    two = small_config(name)
    one, two = with_classes(two, 1), with_classes(two, 2)
    arrays = random_state(one, 0)
    image = np.random.default_rng(1).standard_normal((2, 3, *COMPARISONS[name].sizes[0]))
    middle = np.median(outputs(one, arrays, image)[0])
    arrays["head.classifier.bias" if name != "vitseg" else "head.bias"] -= middle
    ours = outputs(two, to_two_classes(arrays, one), image)
    theirs = outputs(one, arrays, image)
    assert len(ours) == len(theirs)
    for both, z in zip(ours, theirs, strict=True):
        assert not both[:, 0].any()
        assert np.abs(both[:, 1:] - z).max() <= 1e-10 * np.abs(z).max()
        np.testing.assert_array_equal(both.argmax(1), (1 / (1 + np.exp(-z)) > 0.5)[:, 0])
    assert 0.4 < ours[0].argmax(1).mean() < 0.6


@pytest.mark.parametrize("name", ["vitseg", "ccnet_r50"])
def test_back_again(name):
    config = with_classes(small_config(name), 1)
    arrays = random_state(config, 0)
    back = to_one_output(to_two_classes(arrays, config), with_classes(config, 2))
    assert all(back[key].tobytes() == array.tobytes() for key, array in arrays.items())


FILES = {
    "mmseg": small_config("ccnet_r50"),
    "nvlabs": small_config("segformer_b0"),
    "huggingface": small_config("segformer_b0_hf"),
    "notebook": models.get_config("vitseg", width=24, depth=1, mlp_dim=24),
}


@pytest.fixture(scope="module", params=FILES)
def file(request, tmp_path_factory):
    config = with_classes(FILES[request.param], 1)
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    path = tmp_path_factory.mktemp("one") / "x.pth"
    state = convert.load_format(request.param, models.architecture_of(config)).export_state(model)
    convert.write(path, state)
    return path, model, state


def test_files(file, tmp_path):
    path, model, state = file
    loaded = convert.load(path)
    assert loaded.report.config.num_classes == 2 and NOTE in loaded.report.notes
    assert loaded.report.labels.classes == ("background", "foreground")
    expected = to_two_classes(native.state_dict(model), model.config)
    after = native.state_dict(loaded.model)
    assert all(np.array_equal(after[key], array) for key, array in expected.items())
    convert.save(loaded, tmp_path / "back.pth", format=loaded.report.format)
    back = convert.read(tmp_path / "back.pth")
    assert list(back) == list(state)
    assert all(back[key].tobytes() == array.tobytes() for key, array in state.items())


def test_import_verifies(file, tmp_path, capsys):
    assert main(["import", str(file[0]), str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert NOTE in printed and "verified" in printed and "2 classes" in printed
    assert native.load(tmp_path / "out").config.num_classes == 2


def test_other_numbers_that_are_asked_for(file):
    path, model, _ = file
    arrays, report = read_native(path, num_classes=1)
    assert report.config == model.config and NOTE not in report.notes
    assert all(np.array_equal(arrays[k], a) for k, a in native.state_dict(model).items())
    _, report = read_native(path, num_classes=4)
    assert report.config.num_classes == 4 and len(report.fresh) in (2, 4)


def test_a_training_of_two_classes_starts_from_it(file):
    path, model, _ = file
    start = convert.start_from(str(path), with_classes(model.config, 2))
    expected = to_two_classes(native.state_dict(model), model.config)
    assert start.arrays.keys() == expected.keys()
    assert all(np.array_equal(start.arrays[key], array) for key, array in expected.items())
    assert any(NOTE in line for line in start.lines)
    start = convert.start_from(str(path), with_classes(model.config, 3))
    assert expected.keys() - start.arrays.keys() and not any(NOTE in x for x in start.lines)


@pytest.mark.parametrize(
    ("named", "classes"),
    [
        (("sky", "road"), ("sky", "road")),
        (("road",), ("background", "road")),
        (("Background",), ("background", "foreground")),
        (("a", "b", "c"), ("background", "foreground")),
    ],
)
def test_names(named, classes, tmp_path):
    config = with_classes(small_config("ccnet_r50"), 1)
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    state = convert.load_format("mmseg", "ccnet").export_state(model)
    convert.write(tmp_path / "x.pth", state, wrapper="state_dict", meta={"CLASSES": named})
    report = read_native(tmp_path / "x.pth").report
    assert report.labels.classes == classes
    assert any("3 classes" in note for note in report.notes) == (len(named) == 3)


def test_a_hugging_face_folder(tmp_path):
    config = with_classes(small_config("segformer_b0_hf"), 1)
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    convert.save(model, tmp_path / "hf", format="huggingface")
    settings = tmp_path / "hf" / "config.json"
    values = json.loads(settings.read_text())
    settings.write_text(json.dumps({**values, "id2label": {"0": "tumour"}}))
    loaded = convert.load(tmp_path / "hf")
    assert loaded.report.labels.classes == ("background", "tumour")
    convert.save(loaded, tmp_path / "back", format="huggingface")
    again = json.loads((tmp_path / "back" / "config.json").read_text())
    assert again["id2label"] == {"0": "tumour"}
    before, after = (convert.read(tmp_path / d / "model.safetensors") for d in ("hf", "back"))
    assert all(np.array_equal(after[key], array) for key, array in before.items())
