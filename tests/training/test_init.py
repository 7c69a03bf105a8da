"""A training starts from the weights of a checkpoint, and resumes without it."""

import numpy as np
import pytest
from flax import nnx

import convert
from flaxseg import models, native
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.origin import Origin
from flaxseg.preprocess import Preprocess
from flaxseg.training import fit
from flaxseg.training.setup import Setup
from flaxseg.training.workdir import read_origin

FIELDS = {"image_size": (32, 32), "depth": 1, "width": 16, "num_heads": 2, "mlp_dim": 16}
"""Of the network that `tiny_run` trains."""

ORIGIN = (Origin(source="hf:nvidia/x", licence="NVIDIA's", non_commercial=True),)


@pytest.fixture
def checkpoint(tmp_path):
    """A network of the run's kind, in a model directory."""
    model = models.create_model("vitseg", num_classes=6, rngs=nnx.Rngs(9), **FIELDS)
    native.save(model, tmp_path / "checkpoint", origin=ORIGIN)
    return tmp_path / "checkpoint"


def test_starts_from_it_and_resumes_without_it(
    tmp_path, tiny_run, quiet, last_snapshot, checkpoint, compiled_once
):
    run = {"workdir": str(tmp_path / "run"), "init": str(checkpoint), "lr": 1e-12}
    run["channels"] = "bgr"
    wanted = native.state_dict(native.load(checkpoint))
    fit(tiny_run(**run, max_steps=1), quiet, reader=convert.start_from)
    told = quiet.export_text()
    assert f"starts from {checkpoint}" in told
    assert "normalised with --channels rgb, those of this run --channels bgr" in told
    config = tiny_run(**run)
    setup = Setup.of(config)
    assert setup.preprocess == Preprocess(channels="bgr")
    found = native.state_dict(setup.model(last_snapshot(config).state))
    for key, array in wanted.items():
        if "running" not in key:
            np.testing.assert_allclose(found[key], array, atol=1e-6, err_msg=key)
    checkpoint.rename(tmp_path / "gone")
    result = fit(tiny_run(**run, max_steps=2), quiet, reader=convert.start_from)
    assert result.step == 2 and "resuming" in quiet.export_text()
    assert read_origin(config) == ORIGIN


def test_what_does_not_fit_leaves_nothing_behind(tmp_path, small_run, quiet):
    config = small_run(workdir=str(tmp_path / "run"), init=str(tmp_path / "none.pth"))
    with pytest.raises(CheckpointError, match="none.pth does not exist"):
        fit(config, quiet, reader=convert.start_from)
    with pytest.raises(ConfigError, match=r"reader=convert\.start_from"):
        fit(config, quiet)
    assert not (tmp_path / "run").exists()


def test_the_command_brings_the_reader(tmp_path):
    from flaxseg.cli import main

    assert main(["train", "--init", str(tmp_path / "none.pth"), "--workdir", str(tmp_path)]) == 2
