import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from jax import numpy as jnp
from safetensors.numpy import load_file, save_file

from flaxseg import Preprocess, models, native
from flaxseg.errors import CheckpointError
from flaxseg.labels import LabelSet
from flaxseg.model_dir import CONFIG_FILE, WEIGHTS_FILE

SMALL = {"backbone.width": 8, "backbone.blocks": (1, 1, 1, 1), "channels": 16}
LABELS = LabelSet("pair", ("cat", "dog"), ((255, 0, 0), (0, 0, 255)))
PREPROCESS = Preprocess((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bgr")


@pytest.fixture(scope="module")
def model() -> models.CCNet:
    model = models.create_model("ccnet_r50", num_classes=2, rngs=nnx.Rngs(0), **SMALL)
    rng = np.random.default_rng(0)
    arrays = {key: rng.standard_normal(a.shape) for key, a in native.state_dict(model).items()}
    return native.fill(model, arrays)


@pytest.fixture
def saved(model, tmp_path) -> Path:
    native.save(model, tmp_path / "model", labels=LABELS, preprocess=PREPROCESS, name="ccnet_r50")
    return tmp_path / "model"


def assert_same(a: nnx.Module, b: nnx.Module):
    ours, theirs = native.state_dict(a), native.state_dict(b)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert value.dtype == theirs[key].dtype
        np.testing.assert_array_equal(value, theirs[key])


def test_round_trip_is_bit_equal(model, saved):
    loaded = native.load_with_meta(saved)
    assert_same(loaded.model, model)
    assert loaded.model.config == model.config
    assert (loaded.labels, loaded.preprocess) == (LABELS, PREPROCESS)
    images = jnp.ones((1, 16, 16, 3))
    forward = nnx.jit(lambda model, images: model(images).logits)
    expected = forward(models.eval_view(model), images)
    np.testing.assert_array_equal(forward(loaded.model, images), expected)


def test_the_file_is_in_torch_layout(saved, model):
    arrays = load_file(saved / WEIGHTS_FILE)
    assert {key: a.shape for key, a in arrays.items()} == native.leaves(model)
    assert arrays["head.conv_in.conv.weight"].shape == (16, 256, 3, 3)


@pytest.mark.usefixtures("x64")
def test_float64_weights_stay_float64(tmp_path):
    wide = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    model = models.create_model("ccnet", rngs=nnx.Rngs(0), **wide, **SMALL)
    native.save(model, tmp_path / "wide")
    assert_same(native.load(tmp_path / "wide", dtype=jnp.float64), model)


def test_saving_again_replaces_and_leaves_nothing_behind(model, saved):
    changed = nnx.clone(model)
    changed.head.cca.gamma[...] = jnp.full((1,), 3.0)
    native.save(changed, saved)
    assert_same(native.load(saved), changed)
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_full_disk_leaves_the_old_model(model, saved):
    script = f"""
import resource, signal, sys
from flaxseg import native
from flaxseg.errors import CheckpointError

model = native.load({str(saved)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    native.save(model, {str(saved)!r})
except CheckpointError as error:
    sys.exit(0 if "cannot be written" in str(error) else str(error))
sys.exit("the disk was not full")
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert_same(native.load(saved), model)
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_writer_killed_between_the_renames_loses_nothing(model, saved):
    aside, staging = saved.with_name(".model.old"), saved.with_name(".model.new")
    saved.rename(aside)
    staging.mkdir()
    (staging / WEIGHTS_FILE).write_bytes(b"half")
    assert_same(native.load(saved), model)
    native.save(model, saved)
    assert_same(native.load(saved), model)
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.txt": "years of work"},
        {CONFIG_FILE: "{}"},
        {CONFIG_FILE: '{"model": "ccnet"}', "metrics.csv": "step,loss"},
        {CONFIG_FILE: '{"format": "flaxseg"}', "metrics.csv": "step,loss"},
    ],
)
def test_saving_over_something_else_is_refused(model, tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match="exists and is no model directory"):
        native.save(model, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_saving_over_a_file_is_refused(model, tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(CheckpointError, match="exists and is no model directory"):
        native.save(model, tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"


def test_labels_must_fit_the_model(model, tmp_path):
    with pytest.raises(CheckpointError, match="'generic' has 3 classes, the model has 2"):
        native.save(model, tmp_path / "model", labels=LabelSet.generic(3))


def test_all_bad_keys_are_named_at_once(model):
    arrays = native.state_dict(model)
    arrays["head.cca.qeury.bias"] = arrays.pop("head.cca.query.bias")
    arrays["head.cca.gamma"] = np.zeros(4, np.float32)
    before = native.state_dict(model)
    with pytest.raises(CheckpointError) as error:
        native.fill(model, arrays)
    message = str(error.value)
    assert "1 missing: head.cca.query.bias" in message
    assert "1 unexpected: head.cca.qeury.bias (near head.cca.query.bias)" in message
    assert "1 of another shape: head.cca.gamma: (4,), expected (1,)" in message
    after = native.state_dict(model)
    assert all(np.array_equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"{saved} is no model directory: it has no {name}"):
        native.load(saved)


def test_truncated_weights_are_named(saved):
    path = saved / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        native.load(saved)


def test_weights_of_another_network_are_named(saved):
    save_file({"fc.weight": np.zeros((2, 2), np.float32)}, saved / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*1 unexpected: fc\.weight"):
        native.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format 'other' version 1"),
        ({"version": 99}, "version 99.*update flaxseg"),
        ({"model": {"architecture": "resnext"}}, "architecture 'resnext' is unknown"),
        ({"model": {"architecture": "ccnet", "chanels": 3}}, "no field 'chanels'"),
        ({"labels": {"name": "x", "classes": ["a"]}}, "no entry 'palette'"),
        ({"preprocess": {"mean": 3, "std": 4}}, "is damaged"),
        (
            {"preprocess": {**PREPROCESS.to_json(), "channels": "grb"}},
            "channels is 'grb', it must be rgb or bgr",
        ),
    ],
)
def test_a_damaged_header_is_named(saved, change, message):
    path = saved / CONFIG_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=rf"config\.json.*{message}"):
        native.load(saved)


def test_a_header_from_before_there_were_channels(saved):
    path = saved / CONFIG_FILE
    header = json.loads(path.read_text())
    assert header["preprocess"].pop("channels") == "bgr"
    path.write_text(json.dumps(header))
    loaded = native.load_with_meta(saved)
    assert loaded.preprocess == Preprocess(PREPROCESS.mean, PREPROCESS.std, "rgb")


def test_a_header_that_is_no_json_is_named(saved):
    (saved / CONFIG_FILE).write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        native.load(saved)
