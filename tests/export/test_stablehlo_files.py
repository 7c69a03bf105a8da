"""Exported programs say what the model says; all 38 networks take minutes:

WHOLE=1 pytest tests/export/test_stablehlo_files.py
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export
from PIL import Image

from convert.parity.networks import COMPARISONS, small_config
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.cli import main
from flaxseg.export import stablehlo
from flaxseg.export.check import Agreement, check_pictures
from flaxseg.labels import LabelSet
from flaxseg.preprocess import Preprocess

WHOLE = "WHOLE" in os.environ
TINY = {"backbone.blocks": (1, 1, 1, 1), "backbone.width": 4, "channels": 8}
NETWORKS = dict.fromkeys(models.list_models(), {}) if WHOLE else {"ccnet": TINY, "vitseg": {}}
PREPROCESS = Preprocess((0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bgr")
ORIGIN = [{"source": "a.pth", "licence": "NVIDIA's", "non_commercial": True}]
DOCS = Path(__file__).parents[2] / "docs" / "export.md"


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
def test_a_program_says_what_the_model_says_whatever_the_batch(name, tmp_path, capsys):
    """The command has compared batches of two."""
    config = save_model(name, tmp_path / "model", NETWORKS[name])
    size = COMPARISONS[name].sizes[0 if config.fixed_size else 1]
    flags = () if config.fixed_size else ("--size", *map(str, size))
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "a.stablehlo"), *flags]) == 0
    assert re.search(
        r"verified +labels equal in 100 % of the pixels, logits", capsys.readouterr()[0]
    )
    about, program = opened(tmp_path / "a.stablehlo")
    assert about["input"]["shape"] == ["batch", *size, 3]
    assert program.platforms == ("cpu", "cuda", "tpu")
    images = np.random.default_rng(1).standard_normal((3, *size, 3), np.float32)
    model = native.load(tmp_path / "model")
    expected = np.asarray(jax.jit(lambda x: model(x).logits)(images))
    found = np.asarray(jax.jit(program.call)(images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    if name.startswith("ccnet"):  # whose norms all follow a convolution
        assert "rsqrt" not in program.mlir_module()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("exported") / "model"
    more = {"licence": "CC-BY-NC-4.0", "source": "hf:someone/something"}
    save_model("vitseg", directory, {}, **more, origin=ORIGIN, temperature=1.5)
    return directory


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(2).integers(0, 256, (60, 70, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.jpg")
    return folder


def test_the_lines_of_the_docs_need_no_flaxseg(directory, photos, tmp_path):
    out = tmp_path / "my_model.stablehlo"
    flags = ["--with", "preprocess", "argmax", "--check", str(photos)]
    assert main(["export", str(directory), str(out), *flags]) == 0
    (tmp_path / "photo.jpg").write_bytes((photos / "photo.jpg").read_bytes())
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line]) <= 12
    before = "import sys\nsys.modules['flaxseg'] = None\n"
    after = "\nnp.save('labels.npy', labels)\n"
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    run = subprocess.run(
        [sys.executable, "-c", before + code + after],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[0] in ("cat", "dog", "sofa", "grass", "sky")
    photo = Image.open(photos / "photo.jpg").convert("RGB").resize((48, 32))
    model = native.load(directory)
    logits = jax.jit(lambda x: model(PREPROCESS(x)).logits)(np.asarray(photo)[None])
    labels = np.load(tmp_path / "labels.npy")
    assert labels.dtype == np.uint8
    assert np.mean(labels == np.asarray(logits).argmax(-1)[0]) >= 0.999


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
        ("a.onnx", ("--size", "32", "48"), "--size is for .stablehlo files"),
        ("a.onnx", ("--with", "argmax"), "--with is for .stablehlo files"),
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


def test_onnx_goes_to_the_converters(directory, tmp_path, monkeypatch, capsys):
    calls = []

    def write(path, config, arrays, **told):
        calls.append((path, config, told["preprocess"], "head.bias" in arrays))
        return 2e-7

    monkeypatch.setattr("convert.onnx_file.write_onnx", write)
    assert main(["export", str(directory), str(tmp_path / "a.onnx")]) == 0
    assert calls == [(tmp_path / "a.onnx", small_config("vitseg"), PREPROCESS, True)]
    assert "differ by 2.0e-07" in capsys.readouterr().out
