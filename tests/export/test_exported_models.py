"""An exported file where a command takes a model: the results of the model that it is made of."""

import builtins
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from narrow_ccnet import TINY
from PIL import Image

from convert import onnx_file
from convert.parity.networks import small_config
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.cli import main
from flaxseg.data.shapes import LABELS, SPLITS, Shapes
from flaxseg.errors import ConfigError
from flaxseg.files import sha256_of
from flaxseg.inference import evaluate_dir
from flaxseg.model_dir import Header
from flaxseg.preprocess import Preprocess

PREPROCESS = Preprocess((0.1, 0.2, 0.3), (0.3, 0.2, 0.4), "bgr")
DOCS = Path(__file__).parents[2] / "docs" / "export.md"


def save(name: str, folder: Path, overrides: dict) -> None:
    """A narrow network with random weights for the classes of `shapes`."""
    config = models.override(small_config(name), {"num_classes": LABELS.num_classes, **overrides})
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    native.save(model, folder, labels=LABELS, preprocess=PREPROCESS)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"licence": "CC-BY-NC-4.0"}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two models, and each of them exported in two ways."""
    folder = tmp_path_factory.mktemp("exported")
    save("ccnet", folder / "free", TINY)
    save("vitseg", folder / "fixed", {})
    both = ("--with", "preprocess", "argmax")
    exports = {
        "free.onnx": ("--opset", "18"),
        "free.stablehlo": (),
        "fixed.stablehlo": both,
    }
    for name, flags in exports.items():
        assert (
            main(["export", str(folder / name.partition(".")[0]), str(folder / name), *flags]) == 0
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "LARGEST", 1000)
        assert main(["export", str(folder / "fixed"), str(folder / "fixed.onnx"), *both]) == 0
    return folder


@pytest.fixture(scope="module")
def photo(folder) -> Path:
    pixels = Shapes("val", image_size=(64, 96))[0].image
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder / "photo.png"


FILES = ("free.onnx", "free.stablehlo", "fixed.onnx", "fixed.stablehlo")


@pytest.mark.parametrize("name", FILES)
def test_predictions_are_those_of_the_model(folder, photo, tmp_path, name):
    if name.startswith("fixed"):  # of its only size: labels alone cannot be enlarged as logits are
        with Image.open(photo) as picture:
            picture.resize((48, 32)).save(tmp_path / "photo.png")
        photo = tmp_path / "photo.png"
    masks = []
    for model, out in ((folder / name, "exported"), (folder / name.partition(".")[0], "own")):
        assert main(["predict", str(model), str(photo), "--out", str(tmp_path / out)]) == 0
        with Image.open(tmp_path / out / "photo_mask.png") as mask:
            masks.append(np.asarray(mask))
    assert masks[0].shape == ((32, 48) if name.startswith("fixed") else (64, 96))
    assert np.mean(masks[0] == masks[1]) >= 0.999


def test_a_file_looks_as_the_run_did(photo, tmp_path, capsys):
    run, file = tmp_path / "run", tmp_path / "run.stablehlo"
    save("ccnet", run / "model", TINY)
    (run / "config.json").write_text(json.dumps({"data": "shapes", "eval_size": [32, 64]}))
    assert main(["export", str(run), str(file)]) == 0
    assert "seen " not in capsys.readouterr().out
    masks = []
    for model, more in ((run, ()), (file, ()), (file, ("--size", "64", "96"))):
        out = tmp_path / f"out{len(masks)}"
        assert main(["predict", str(model), str(photo), "--out", str(out), *more]) == 0
        with Image.open(out / "photo_mask.png") as mask:
            masks.append(np.asarray(mask))
    assert np.mean(masks[0] == masks[1]) >= 0.999 > np.mean(masks[0] == masks[2])


def test_a_file_of_another_size_than_the_runs_says_so(folder, tmp_path, capsys):
    run, file = tmp_path / "run", tmp_path / "run.stablehlo"
    shutil.copytree(folder / "fixed", run / "model")
    (run / "config.json").write_text(json.dumps({"data": "shapes", "eval_window": [16, 16]}))
    assert main(["export", str(run), str(file)]) == 0
    told = "seen       by the run with --window 16 16"
    assert f"{told}, which the file does not know: flaxseg predict {file} --window 16 16\n" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("name", FILES)
def test_logits_are_those_of_the_model(folder, name):
    """Of a batch of another length, and of another size where it is free."""
    size = {"free.onnx": (33, 47), "free.stablehlo": (96, 32)}.get(name, (32, 48))
    pixels = np.random.default_rng(1).integers(0, 256, (3, *size, 3), np.uint8)
    images = np.asarray(PREPROCESS(pixels))
    network = native.load(folder / name)
    model = native.load(folder / name.partition(".")[0])
    found, expected = (
        np.asarray(jax.jit(lambda x, f=f: f(x).logits)(images)) for f in (network, model)
    )
    if name.startswith("free"):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    else:
        assert set(np.unique(found)) == {0, 1} and (found.sum(-1) == 1).all()
        assert np.mean(found.argmax(-1) == expected.argmax(-1)) >= 0.999


@pytest.mark.parametrize("name", ("free.onnx", "free.stablehlo"))
def test_scores_are_those_of_the_model(folder, monkeypatch, name):
    monkeypatch.setitem(SPLITS, "val", 4)
    options = {"data": "shapes", "batch_size": 2, "eval_size": (64, 64)}
    found, expected = (evaluate_dir(folder / which, **options) for which in (name, "free"))
    np.testing.assert_allclose(found.matrix, expected.matrix, atol=8)


def test_labels_alone_are_no_probabilities(folder, photo, tmp_path, capsys):
    model = str(folder / "fixed.onnx")
    for flags in (("--write", "confidence"), ("--min-confidence", "0.5")):
        assert main(["predict", model, str(photo), "--out", str(tmp_path), *flags]) == 2
        error = capsys.readouterr().err
        assert "needs logits, and this exported program gives labels alone" in error
        assert error.count("\n") == 1
    flags = ("--data", "shapes", "--metrics", "soft_iou")
    assert main(["eval", model, *flags]) == 2
    assert "soft_iou needs logits" in capsys.readouterr().err


def test_labels_have_the_size_of_the_picture_where_logits_have_not(folder, tmp_path):
    flags = ("--size", "33", "47", "--with", "argmax")
    assert main(["export", str(folder / "free"), str(tmp_path / "a.stablehlo"), *flags]) == 0
    images = np.random.default_rng(0).standard_normal((1, 33, 47, 3), np.float32)
    assert native.load(folder / "free")(images).logits.shape[1:3] == (40, 48)
    assert native.load(tmp_path / "a.stablehlo")(images).logits.shape[1:3] == (33, 47)


def test_large_weights_lie_beside_the_file(folder):
    data = folder / "fixed.onnx.data"
    weights = sum(a.nbytes for a in native.state_dict(native.load(folder / "fixed")).values())
    assert data.stat().st_size >= 0.9 * weights  # all but the smallest
    graph = onnx.load(folder / "fixed.onnx", load_external_data=False).graph
    stored = {e.value for t in graph.initializer for e in t.external_data if e.key == "location"}
    assert stored == {"fixed.onnx.data"}
    assert not list(folder.glob(".*"))


def test_an_onnx_file_tells_what_it_is(folder):
    free, fixed = (
        onnxruntime.InferenceSession(folder / name) for name in ("free.onnx", "fixed.onnx")
    )
    told = {k: json.loads(v) for k, v in free.get_modelmeta().custom_metadata_map.items()}
    assert told["classes"] == told["labels"]["classes"] == list(LABELS.classes)
    assert {key: told[key] for key in PREPROCESS.to_json()} == PREPROCESS.to_json()
    assert told["more"] == {"licence": "CC-BY-NC-4.0"} and told["opset"] == 18
    assert told["weights_sha256"] == sha256_of(folder / "free" / "model.safetensors")
    model = onnx.load(folder / "free.onnx")
    assert model.opset_import[0].version == 18
    operations = {node.op_type for node in model.graph.node}
    assert "Conv" in operations and "BatchNormalization" not in operations
    (taken,), (given,) = fixed.get_inputs(), fixed.get_outputs()
    assert (taken.type, taken.shape[1:]) == ("tensor(uint8)", [32, 48, 3])
    assert (given.name, given.type, given.shape[1:]) == ("labels", "tensor(uint8)", [32, 48])


@pytest.mark.parametrize("name", FILES)
def test_info_tells_of_it(folder, capsys, name):
    assert main(["info", str(folder / name), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["labels"] == LABELS.to_json()
    assert told["sizes"]["fixed"] == ([32, 48] if name.startswith("fixed") else None)
    assert told["sizes"]["divisor"] == (32 if name == "free.stablehlo" else 1)
    assert told["more"]["licence"] == "CC-BY-NC-4.0"


def test_without_onnxruntime(folder, photo, monkeypatch, capsys):
    plain = builtins.__import__

    def blocked(name, *args, **options):
        if name == "onnxruntime":
            raise ModuleNotFoundError(name)
        return plain(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", blocked)
    assert main(["predict", str(folder / "free.onnx"), str(photo)]) == 2
    error = capsys.readouterr().err
    assert "needs onnxruntime: pip install onnxruntime" in error and error.count("\n") == 1


def damaged(folder: Path) -> dict[str, str]:
    """Files that are none of ours, and what is said of them."""
    content = (folder / "free.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(content[:1000])
    model = onnx.load(folder / "free.onnx")
    del model.metadata_props[:]
    onnx.save(model, folder / "strange.onnx")
    with zipfile.ZipFile(folder / "free.stablehlo") as file:
        about = json.loads(file.read("about.json"))
    for name, change in (("newer", {"version": 99}), ("lacking", {})):
        with zipfile.ZipFile(folder / f"{name}.stablehlo", "w") as file:
            file.writestr("about.json", json.dumps({**about, **change}))
            file.writestr("program.bin", b"nothing")
    return {
        "cut.onnx": "cannot be read by onnxruntime",
        "strange.onnx": "was not written by flaxseg export",
        "newer.stablehlo": "version 99, this release reads up to 1: update flaxseg",
        "lacking.stablehlo": "cannot be read by jax",
    }


def test_what_cannot_be_read_is_told_in_a_line(folder, photo, capsys):
    for name, message in damaged(folder).items():
        assert main(["predict", str(folder / name), str(photo)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_no_weights_are_taken_from_a_program(folder, tmp_path, capsys):
    assert main(["export", str(folder / "free.onnx"), str(tmp_path / "a.stablehlo")]) == 2
    assert "give the model directory that it was made from" in capsys.readouterr().err


def test_an_opset_that_cannot_be_written(tmp_path):
    config = small_config("vitseg")
    header = Header("vitseg", config, LABELS, PREPROCESS)
    for opset in (17, 24):
        with pytest.raises(ConfigError, match=f"--opset is {opset}, it must be from 18 to 23"):
            onnx_file.write_onnx(tmp_path / "a.onnx", header, {}, opset=opset)


SCRIPTS = dict(
    zip(
        ("stablehlo", "onnx"),
        re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S),
        strict=True,
    )
)
BEFORE = """
import sys
for name in ("flaxseg", {blocked}):
    sys.modules[name] = None
"""


@pytest.mark.parametrize(("kind", "blocked"), [("stablehlo", "'onnxruntime'"), ("onnx", "'jax'")])
def test_the_lines_of_the_docs_need_no_flaxseg(folder, photo, tmp_path, kind, blocked):
    code = SCRIPTS[kind]
    assert len([line for line in code.splitlines() if line]) <= 12
    for file in folder.glob(f"fixed.{kind}*"):
        (tmp_path / file.name.replace("fixed", "my_model")).write_bytes(file.read_bytes())
    # The data's name stands in the file.
    if kind == "onnx":
        (tmp_path / "fixed.onnx.data").write_bytes((folder / "fixed.onnx.data").read_bytes())
    Image.open(photo).save(tmp_path / "photo.jpg")
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            BEFORE.format(blocked=blocked) + code + "\nnp.save('labels', labels)",
        ],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[0] in LABELS.classes
    pixels = np.asarray(Image.open(tmp_path / "photo.jpg").convert("RGB").resize((48, 32)))
    model = native.load(folder / "fixed")
    logits = jax.jit(lambda x: model(PREPROCESS(x)).logits)(pixels[None])
    labels = np.load(tmp_path / "labels.npy")
    assert labels.dtype == np.uint8
    assert np.mean(labels == np.asarray(logits).argmax(-1)[0]) >= 0.999
