"""ONNX files compute what Flax does; `make peers` tries every network."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

import convert
from convert import onnx_file
from convert.__main__ import main
from convert.parity.networks import small_config
from convert.parity.runs import random_state
from convert.verify import run_flax
from flaxseg import models, native
from flaxseg.errors import CheckpointError
from flaxseg.labels import LabelSet
from flaxseg.origin import Origin, chain_to_json
from flaxseg.preprocess import Preprocess

PREPROCESS = Preprocess((0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bgr")
ORIGIN = (Origin(source="a.pth", licence="NVIDIA's", non_commercial=True),)
TINY = {"backbone.blocks": (1, 1, 1, 1), "backbone.width": 4, "channels": 8}


def test_every_batch_and_size(tmp_path):
    config = models.override(small_config("ccnet"), TINY)
    state = random_state(config, 0)
    assert onnx_file.write_onnx(tmp_path / "a.onnx", config, state) < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    operations = {node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node}
    assert "Conv" in operations and "BatchNormalization" not in operations
    images = np.random.default_rng(1).standard_normal((3, 3, 33, 47), np.float32)
    (found,) = session.run(None, {"images": images})
    expected = run_flax(config, state, images, resize=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.fixture
def directory(tmp_path):
    """A model directory with named classes."""
    config = small_config("vitseg")
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    palette = tuple((n, n, n) for n in range(5))
    labels = LabelSet("pets", ("cat", "dog", "sofa", "grass", "sky"), palette)
    told = {"origin": ORIGIN, "temperature": 1.5}
    native.save(model, tmp_path / "model", labels=labels, preprocess=PREPROCESS, **told)
    return tmp_path / "model"


def test_save_writes_it_too(directory, tmp_path):
    convert.save(convert.load(directory), tmp_path / "b.onnx", format="onnx")
    session = onnxruntime.InferenceSession(tmp_path / "b.onnx")
    assert session.get_outputs()[0].shape[1:] == [5, 32, 48]
    notes = session.get_modelmeta().custom_metadata_map
    assert json.loads(notes["classes"])[0] == "cat" and json.loads(notes["channels"]) == "bgr"


def test_command(directory, tmp_path, capsys):
    assert main(["export", str(directory), str(tmp_path / "a.onnx")]) == 0
    said = capsys.readouterr().out
    assert "onnxruntime and Flax differ by" in said and "licence    NVIDIA's" in said
    notes = onnxruntime.InferenceSession(tmp_path / "a.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(notes["classes"]) == ["cat", "dog", "sofa", "grass", "sky"]
    assert json.loads(notes["origin"]) == chain_to_json(ORIGIN) and notes["temperature"] == "1.5"
    assert {key: json.loads(notes[key]) for key in PREPROCESS.to_json()} == PREPROCESS.to_json()
    assert main(["export", str(directory), str(tmp_path / "a.onnx")]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["export", str(directory), str(tmp_path / "a.pth")]) == 2
    assert "--format says the layout" in capsys.readouterr().err


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "NEEDED", ("torch", "no_such_package"))
    config = small_config("vitseg")
    with pytest.raises(CheckpointError, match=r"need no_such_package: pip install .*onnx"):
        onnx_file.write_onnx(tmp_path / "a.onnx", config, random_state(config, 0))


def test_other_logits_leave_no_file(tmp_path, monkeypatch):
    config = small_config("vitseg")
    state = random_state(config, 0)
    other = {**state, "head.bias": state["head.bias"] + 1}
    monkeypatch.setattr(
        onnx_file, "run_flax", lambda c, a, i, resize: run_flax(c, other, i, resize=resize)
    )
    with pytest.raises(CheckpointError, match="ONNX and Flax differ by"):
        onnx_file.write_onnx(tmp_path / "a.onnx", config, state)
    assert list(tmp_path.iterdir()) == []
