"""Exported programs say what the model says; all 38 networks take minutes:

WHOLE=1 pytest tests/export/test_stablehlo_files.py
"""

import json
import os
import re
import zipfile

import jax
import numpy as np
import pytest
from jax import export
from narrow_ccnet import TINY

from convert.parity.networks import COMPARISONS, small_config
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.cli import main
from flaxseg.export import stablehlo
from flaxseg.export.check import Agreement, check_pictures
from flaxseg.labels import LabelSet
from flaxseg.preprocess import Preprocess

WHOLE = "WHOLE" in os.environ
NETWORKS = dict.fromkeys(models.list_models(), {}) if WHOLE else {"ccnet": TINY, "vitseg": {}}
PREPROCESS = Preprocess((0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bgr")
ORIGIN = [{"source": "a.pth", "licence": "NVIDIA's", "non_commercial": True}]


def save_model(name, directory, overrides, **more):
    """A narrow network with random weights; `more` joins its config.json."""
    config = models.override(small_config(name), overrides)
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    palette = tuple((n, 2 * n, 3 * n) for n in range(5))
    labels = LabelSet("pets", ("cat", "dog", "sofa", "grass", "sky"), palette)
    native.save(model, directory, labels=labels, preprocess=PREPROCESS)
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    return config


def opened(path):
    with zipfile.ZipFile(path) as file:
        about = json.loads(file.read("about.json"))
        return about, export.deserialize(bytearray(file.read("program.bin")))


@pytest.mark.parametrize("name", NETWORKS)
def test_one_program_says_what_the_model_says_of_every_batch_and_size(name, tmp_path, capsys):
    """The command has compared batches of two."""
    config = save_model(name, tmp_path / "model", NETWORKS[name])
    sizes, flags = [COMPARISONS[name].sizes[0 if config.fixed_size else 1]], ()
    if config.one_program:
        sizes = (
            [(64, 64), (128, 128), (32, 32)] if config.square else [(64, 64), (96, 64), (32, 160)]
        )
    elif not config.fixed_size:
        flags = ("--size", *map(str, sizes[0]))
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "a.stablehlo"), *flags]) == 0
    assert re.search(
        r"verified +labels equal in 100 % of the pixels, logits", capsys.readouterr()[0]
    )
    about, program = opened(tmp_path / "a.stablehlo")
    assert about["input"]["shape"][0] == "batch"
    assert about["sizes"]["fixed"] == (None if config.one_program else list(sizes[0]))
    assert program.platforms == ("cpu", "cuda", "tpu")
    model = native.load(tmp_path / "model")
    own, exported = jax.jit(lambda x: model(x).logits), jax.jit(program.call)
    for size in sizes:
        images = np.random.default_rng(1).standard_normal((3, *size, 3), np.float32)
        expected = np.asarray(own(images))
        for batch in (1, 3):
            found = np.asarray(exported(images[:batch]))
            atol = 1e-4 * np.abs(expected).max()
            np.testing.assert_allclose(found, expected[:batch], rtol=0, atol=atol)
    if name.startswith("ccnet"):  # whose norms all follow a convolution
        assert "rsqrt" not in program.mlir_module()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("exported") / "model"
    more = {"licence": "CC-BY-NC-4.0", "source": "hf:someone/something"}
    save_model("vitseg", directory, {}, **more, origin=ORIGIN, temperature=1.5)
    return directory


def test_a_file_tells_what_it_is(directory, tmp_path):
    stablehlo.write_stablehlo(tmp_path / "a", directory, size=(32, 48), steps=["argmax"])
    about, program = opened(tmp_path / "a")
    assert about["labels"]["classes"] == ["cat", "dog", "sofa", "grass", "sky"]
    assert about["labels"]["palette"][2] == [2, 4, 6]
    assert about["preprocess"] == PREPROCESS.to_json()
    assert about["more"] == {"licence": "CC-BY-NC-4.0", "source": "hf:someone/something"}
    assert (about["origin"], about["temperature"]) == (ORIGIN, 1.5)
    assert about["jax"] == jax.__version__
    assert about["calling_convention_version"] == program.calling_convention_version
    assert about["input"]["dtype"] == "float32"
    assert about["output"] == {"shape": ["batch", 32, 48], "dtype": "uint8", "values": "labels"}
    assert about["agreement"]["pictures"] == 4 and about["agreement"]["logits"] is None
    assert models.config_from_json(about["model"]) == small_config("vitseg")


def test_a_program_of_other_weights_leaves_no_file(directory, tmp_path, monkeypatch, capsys):
    make = stablehlo.make_program

    def make_wrong(loaded, size, steps):
        bias = native.state_dict(loaded.model)["head.bias"]
        arrays = native.state_dict(loaded.model) | {
            "head.bias": bias + np.linspace(0, 1, bias.size)
        }
        model = models.abstract_model(loaded.model.config)
        return make(loaded._replace(model=native.fill(model, arrays)), size, steps)

    monkeypatch.setattr(stablehlo, "make_program", make_wrong)
    assert main(["export", str(directory), str(tmp_path / "a.stablehlo")]) == 2
    error = capsys.readouterr().err
    assert re.search(
        r"differ: labels equal in [\d.]+ % of the pixels, logits within [\d.]+e-0\d of", error
    )
    assert "expected 99.99 % and 1e-04" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_suffices():
    assert Agreement(1, 0.99991, 9e-5).suffices and Agreement(1, 1.0, None).suffices
    for short in ((0.99989, 0.0), (1.0, 2e-4), (1.0, float("nan"))):
        assert not Agreement(1, *short).suffices


def test_pictures_are_the_same_every_time_and_of_any_size():
    for size in ((5, 40), (64, 48)):
        pictures = check_pictures(size, None)
        assert {picture.shape for picture in pictures} == {(*size, 3)} and len(pictures) == 4
        for one, other in zip(pictures, check_pictures(size, None), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("out", "flags", "error"),
    [
        ("a.tflite", (), "ends in '.tflite': give it a name that ends in .stablehlo or .onnx"),
        ("no/a.stablehlo", (), "there is no folder"),
        ("a.stablehlo", ("--size", "30", "50"), "--size 30 50: images of 30x50 pixels do not fit"),
        ("a.stablehlo", ("--check", "nothing"), "nothing"),
        ("a.onnx", ("--size", "30", "50"), "--size 30 50: images of 30x50 pixels do not fit"),
        ("a.onnx", ("--opset", "17"), "--opset is 17, it must be from 18 to 23"),
        ("a.stablehlo", ("--opset", "18"), "--opset is for .onnx files, not for"),
    ],
)
def test_what_does_not_fit_is_told(directory, tmp_path, capsys, out, flags, error):
    assert main(["export", str(directory), str(tmp_path / out), *flags]) == 2
    assert error in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_replaced(directory, tmp_path, capsys):
    (tmp_path / "a.stablehlo").write_text("mine")
    assert main(["export", str(directory), str(tmp_path / "a.stablehlo")]) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "a.stablehlo").read_text() == "mine"
