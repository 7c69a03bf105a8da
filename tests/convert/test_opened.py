"""A checkpoint where a command takes a model: imported once, with the results of an import."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import convert
import flaxseg
from convert import opened
from convert.__main__ import main as convert_main
from convert.formats import load_format
from convert.parity.runs import random_state
from flaxseg import cli, models, native
from flaxseg.bench.command import find_config
from flaxseg.errors import ConfigError

TINY = {
    "num_classes": 3,
    "backbone.widths": (4, 8, 10, 16),
    "backbone.depths": (1, 1, 1, 1),
    "channels": 8,
}
LINE = "segformer as mmseg stores it; classes: 3 (sky, road, tree); images: rgb, mean 0.485 0.456"


def network(name: str) -> models.Model:
    config = models.get_config(name, **TINY)
    return native.fill(models.abstract_model(config), random_state(config, 0))


@pytest.fixture(scope="module")
def model():
    return network("segformer_b0_mmseg")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAXSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(model, tmp_path, cache):
    state = load_format("mmseg", "segformer").export_state(model)
    meta = {"CLASSES": ("sky", "road", "tree")}
    convert.write(tmp_path / "x.pth", state, wrapper="state_dict", meta=meta)
    return tmp_path / "x.pth"


@pytest.fixture
def imports(monkeypatch):
    """The places that were imported."""
    places = []

    read = opened.read_native
    monkeypatch.setattr(opened, "read_native", lambda p: (places.append(p.name), read(p))[1])
    return places


def content(folder: Path, files: str = "*.*") -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob(files)}


def test_predictions_are_those_of_an_import(file, imports, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")

    def predict(model: Path, out: str) -> str:
        paths = (tmp_path / "photo.png", "--out", tmp_path / out, "--size", 32, 32)
        assert cli.main(["predict", str(model), *map(str, paths)]) == 0
        return capsys.readouterr().out

    first = predict(file, "first")
    assert first.startswith(f"{file}: {LINE}") and "flaxseg convert import --verify" in first
    assert imports == [str(file)]
    assert predict(file, "second") == first.replace("first", "second")
    assert imports == [str(file)]
    assert convert_main(["import", str(file), str(tmp_path / "model"), "--no-verify"]) == 0
    capsys.readouterr()
    assert str(file) not in predict(tmp_path / "model", "by_hand")
    first, second, expected = (
        content(tmp_path / out, "*.png") for out in ("first", "second", "by_hand")
    )
    assert len(expected) == 3
    assert first == second == expected


def test_every_command_takes_it(file, model, capsys):
    assert find_config(str(file), convert.as_directory) == model.config
    assert cli.main(["eval", str(file)]) == 2
    assert "error: the model does not say on which data" in capsys.readouterr().err
    assert cli.main(["eval", str(file), "--calibrate"]) == 2
    assert f"flaxseg convert import {file} DIR makes one" in capsys.readouterr().err
    assert cli.main(["bench", str(file), "--size", "33", "--mode"]) == 2
    assert "--mode" in capsys.readouterr().err


def test_the_content_counts_and_not_the_name(file, imports, tmp_path):
    first = convert.as_directory(file)
    assert convert.as_directory(shutil.copy(file, tmp_path / "copy.bin")) == first
    assert len(imports) == 1
    folder = tmp_path / "folder"
    convert.save(network("segformer_b0_hf"), folder, format="huggingface")
    plain = native.load_with_meta(convert.as_directory(folder)).labels.classes
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "sky", "1": "road", "2": "tree"}
    (folder / "config.json").write_text(json.dumps(config))
    named = native.load_with_meta(convert.as_directory(folder)).labels.classes
    assert (plain, named) == (("class_0", "class_1", "class_2"), ("sky", "road", "tree"))
    assert len(imports) == 3


def test_directories_of_ours_are_taken_as_they_are(model, imports, cache, tmp_path):
    flaxseg.save(model, tmp_path / "run/model")
    lines = []
    for path in (tmp_path / "run/model", tmp_path / "run", tmp_path):
        assert convert.as_directory(path, say=lines.append) == path
    assert not (imports or lines or cache.exists())


def cut(entry: Path):
    weights = entry / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def flip(entry: Path):
    weights = entry / "model/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


DAMAGE = (
    cut,
    flip,
    lambda entry: (entry / "model/config.json").unlink(),
    lambda entry: (entry / "import.json").write_text("[]"),
    lambda entry: (shutil.rmtree(entry), entry.mkdir()),
)


def test_a_damaged_entry_is_made_anew(file, imports):
    directory = convert.as_directory(file)
    entry = directory.parent
    expected = content(entry)
    for times, damage in enumerate(DAMAGE, 1):
        damage(entry)
        assert content(entry) != expected
        assert convert.as_directory(file) == directory and content(entry) == expected
        assert len(imports) == 1 + times
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]


def test_what_a_file_does_not_tell_is_an_error_with_the_mend(file, cache, tmp_path, capsys):
    ours, sets, strange = (tmp_path / f"{name}.pth" for name in ("ours", "sets", "strange"))
    convert.save(network("segformer_b0_hf"), ours, format="torch_ref")
    state = torch.load(file, weights_only=True)["state_dict"]
    torch.save({"first": state, "second": {k: t.clone() for k, t in state.items()}}, sets)
    torch.save({"a.weight": torch.zeros(2, 3)}, strange)
    mends = {
        ours: "flaxseg convert import --model says which one it is",
        sets: "flaxseg convert import --weights NAME",
        strange: "none of the known formats (flaxseg convert formats)",
        tmp_path / "none": "none does not exist: give the work directory",
    }
    for path, mend in mends.items():
        assert cli.main(["predict", str(path), "photo.png"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and mend in error
    assert not list(cache.rglob("*.safetensors"))


def test_a_cache_that_cannot_be_written(file, cache):
    cache.write_text("")
    with pytest.raises(flaxseg.DataError, match="cannot be written.*; set FLAXSEG_CACHE"):
        convert.as_directory(file)


SCRIPT = """
import json, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torch_ref"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Block())
import convert

for _ in sys.stdin:
    lines = []
    paths = [str(convert.as_directory(source, say=lines.append)) for source in sys.argv[1:]]
    print(json.dumps([paths, lines]), flush=True)
"""


def test_from_the_hub_by_two_at_once_and_then_offline(hub, model, cache, tmp_path):
    root = tmp_path / "hub/me"
    convert.save(network("segformer_b0_hf"), root / "net", format="huggingface")
    flaxseg.save(model, root / "own")
    environment = os.environ | {
        "HF_HOME": str(tmp_path / "hf"),
        "PYTHONPATH": str(Path(convert.__file__).parents[1]),
    }

    def start(address: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, "hf:me/net", "hf:me/own@main"],
            env=environment | {"HF_ENDPOINT": address},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(*processes: subprocess.Popen) -> list[list[list[str]]]:
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in processes]

    with contextlib.ExitStack() as stack:
        with hub(tmp_path / "hub") as address:
            one, other = (stack.enter_context(start(address)) for _ in range(2))
            found = ask(one, other)
        found += ask(other)
    assert (one.returncode, other.returncode) == (0, 0)
    assert found[0] == found[1] == found[2]
    (net, own), (line,) = found[0]
    assert line.startswith("hf:me/net: segformer as huggingface stores it; classes: 3 (not named")
    assert (Path(own) / "model.safetensors").read_bytes() == (
        root / "own/model.safetensors"
    ).read_bytes()
    assert Path(net) == convert.as_directory(root / "net")
    assert len(list((cache / "models").iterdir())) == 1


def test_our_own_directory_from_the_hub_is_native(model, tmp_path, monkeypatch):
    flaxseg.save(model, tmp_path / "own")
    monkeypatch.setattr("convert.sources._download", lambda source: tmp_path / "own")
    loaded = convert.load("hf:me/own")
    assert (loaded.report.format, loaded.report.source) == ("native", "hf:me/own")
    kept = convert.start_from("hf:me/own", model.config).arrays
    expected = native.state_dict(model)
    assert kept.keys() == expected.keys()
    assert all(np.array_equal(kept[key], expected[key]) for key in expected)
    with pytest.raises(ConfigError, match="hf:me/own has 3 classes, not 4"):
        convert.load("hf:me/own", num_classes=4)
