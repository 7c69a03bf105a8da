"""`python -m convert`, as its users type it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import convert
import flaxseg
import torch_ref
from convert import __main__ as command
from convert.__main__ import main
from convert.formats import load_format
from convert.parity.runs import random_state
from convert.verify import torch_logits
from flaxseg import models, native

TINY = {
    "num_classes": 3,
    "backbone.widths": (4, 8, 10, 16),
    "backbone.depths": (1, 1, 1, 1),
    "channels": 8,
}


@pytest.fixture(scope="module")
def model():
    config = models.get_config("segformer_b0_mmseg", **TINY)
    return native.fill(models.abstract_model(config), random_state(config, 0))


@pytest.fixture
def file(model, tmp_path):
    state = load_format("mmseg", "segformer").export_state(model)
    meta = {"CLASSES": ("sky", "road", "tree")}
    convert.write(tmp_path / "x.pth", state, wrapper="state_dict", meta=meta)
    return tmp_path / "x.pth"


def run(*arguments) -> int:
    return main(list(map(str, arguments)))


def test_import_and_export(model, file, tmp_path, capsys):
    assert run("import", file, tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "format     mmseg: mmsegmentation segformer" in printed
    assert "verified   PyTorch and Flax differ by" in printed
    loaded = native.load_with_meta(tmp_path / "out")
    assert loaded.labels.classes == ("sky", "road", "tree")
    before, after = native.state_dict(model), native.state_dict(loaded.model)
    assert all(before[key].tobytes() == after[key].tobytes() for key in before)
    assert torch_ref.load(tmp_path / "out").config == model.config

    assert run("export", tmp_path / "out", tmp_path / "back.pth", "--format", "mmseg") == 0
    first, second = (torch.load(p, weights_only=True) for p in (file, tmp_path / "back.pth"))
    assert list(first["state_dict"]) == list(second["state_dict"])
    assert all(torch.equal(t, second["state_dict"][k]) for k, t in first["state_dict"].items())
    assert second["meta"]["dataset_meta"]["classes"] == ["sky", "road", "tree"]


def test_inspect(file, capsys):
    assert run("inspect", file) == 0
    printed = capsys.readouterr().out
    assert "wrappers   state_dict" in printed and "float32" in printed
    assert "recognised mmseg: segformer, 3 classes" in printed
    assert "decode_head.conv_seg" in printed and "WARNING" not in printed


def test_inspect_of_a_stranger(tmp_path, capsys):
    convert.write(tmp_path / "x.safetensors", {"a.b.c": np.full((2, 3), np.nan, np.float32)})
    assert run("inspect", tmp_path / "x.safetensors") == 0
    printed = capsys.readouterr().out
    assert "not recognised: none of the known formats" in printed and "2x3" in printed
    assert "WARNING    1 tensors hold NaN" in printed


def test_formats(capsys):
    assert run("formats") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("native", "nvlabs", "coincheung", "torch_ref"))


def check_refused(capsys, out: Path, *arguments, match: str):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and match in error
    assert not out.exists() and "Traceback" not in error


def test_what_cannot_be_exported(file, tmp_path, capsys):
    out = tmp_path / "back.pth"
    arguments = ("export", tmp_path, out, "--format", "mmseg")
    check_refused(capsys, out, *arguments, match="is no model directory: it has no config.json")


def test_nothing_is_overwritten(model, file, tmp_path, capsys):
    flaxseg.save(model, tmp_path / "out")
    before = (tmp_path / "out" / "config.json").read_bytes()
    assert run("import", file, tmp_path / "out") == 2
    assert "out exists: choose another directory" in capsys.readouterr().err
    assert (tmp_path / "out" / "config.json").read_bytes() == before
    assert run("export", tmp_path / "out", file, "--format", "mmseg") == 2
    assert "x.pth exists: choose another name" in capsys.readouterr().err


def test_what_cannot_be_imported(file, tmp_path, capsys):
    out = tmp_path / "out"
    cut = tmp_path / "cut.pth"
    cut.write_bytes(file.read_bytes()[:-100])
    check_refused(capsys, out, "import", cut, out, match="cut.pth is damaged or no torch file")
    check_refused(capsys, out, "import", tmp_path / "no.pth", out, match="does not exist")
    torch.save({"state": {}, "param_groups": []}, tmp_path / "optimiser.pth")
    check_refused(
        capsys, out, "import", tmp_path / "optimiser.pth", out, match="state of an optimiser"
    )
    check_refused(
        capsys, out, "import", file, out, "--format", "nvlab", match="no format is called"
    )
    check_refused(
        capsys,
        out,
        "import",
        file,
        out,
        "--model",
        "segformer_b9",
        match="did you mean segformer_b",
    )


def test_files_that_unpack_to_more_than_they_are(file, tmp_path, capsys):
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    out = tmp_path / "out"
    check_refused(capsys, out, "import", bomb, out, match="would unpack to 10,000,000 bytes")


def test_weights_that_compute_something_else_are_not_written(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "torch_logits", lambda *a: 1.001 * torch_logits(*a))
    out = tmp_path / "out"
    check_refused(capsys, out, "import", file, out, match="PyTorch and Flax differ by 1.0e-03")
    assert run("import", file, out, "--no-verify") == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_smaller_numbers(model, file, tmp_path, dtype):
    assert run("import", file, tmp_path / "out", "--dtype", dtype) == 0
    whole = sum(a.nbytes for a in native.state_dict(model).values())
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < 0.75 * whole
    loaded = native.state_dict(flaxseg.load(tmp_path / "out"))
    for key, array in native.state_dict(model).items():
        expected = torch.from_numpy(np.array(array)).to(getattr(torch, dtype)).float()
        np.testing.assert_array_equal(loaded[key], expected.numpy(), err_msg=key)


def test_a_reader_that_has_seen_enough():
    process = subprocess.Popen(
        [sys.executable, "-m", "convert", "formats"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(convert.__file__).parents[1],
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 0


def test_from_the_hub(hub, tmp_path):
    config = models.get_config("segformer_b0_hf", **TINY)
    network = native.fill(models.abstract_model(config), random_state(config, 0))
    convert.save(network, tmp_path / "hub/me/net", format="huggingface")
    command = [sys.executable, "-m", "convert", "import", "hf:me/net", "--no-verify"]
    with hub(tmp_path / "hub") as address:
        environment = {
            **os.environ,
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "cache"),
            "PYTHONPATH": str(Path(convert.__file__).parents[1]),
        }
        options = {"env": environment, "capture_output": True, "text": True, "cwd": tmp_path}
        fetched = subprocess.run([*command, "fetched"], **options)
    assert fetched.returncode == 0, fetched.stderr
    arrays = native.state_dict(flaxseg.load(tmp_path / "fetched"))
    expected = native.state_dict(network)
    assert all(np.array_equal(arrays[key], expected[key]) for key in expected)
    stranger = [*command[:-2], "hf:me/other", "--no-verify", "no"]
    refused = subprocess.run(stranger, **options)
    assert refused.returncode == 2 and "hf:me/other cannot be fetched" in refused.stderr
    assert json.loads((tmp_path / "fetched" / "config.json").read_text())["name"] == "segformer"
