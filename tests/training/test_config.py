import dataclasses
import json

import pytest

from flaxseg.errors import ConfigError
from flaxseg.training import TrainConfig, make_config
from flaxseg.training.config import differences, parse_overrides, resolved
from flaxseg.training.workdir import check_workdir, read_result

DAMAGED = (b"", b"{", b"null", b"3", b"[]", b'{"epochs": null}', b"\xff\xfe{}")


def test_survives_json(tmp_path):
    config = make_config(
        "ccnet", "camvid", "tutorial", override=("backbone.width=8",), data_dir="x", max_steps=3
    )
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    assert TrainConfig.load(tmp_path / "config.json") == config
    assert config.to_json()["image_size"] == [224, 224]


def test_tutorial_recipe():
    config = make_config("ccnet", "camvid", "tutorial")
    chosen = {
        "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "schedule": "step", "step_size": 50,
        "gamma": 0.5, "warmup_epochs": 0.0, "batch_size": 8, "epochs": 100,
        "image_size": (224, 224), "eval_size": (224, 224), "resize": "stretch",
        "scale": (1.0, 1.0), "hflip": 0.5, "vflip": 0.5, "jitter": 0.0,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in chosen} == chosen


def test_default_recipe_depends_on_the_data():
    drawn, photographs = make_config(data="shapes"), make_config(data="camvid")
    assert drawn.epochs < photographs.epochs
    assert drawn.jitter == 0 < photographs.jitter


def test_fields_override_the_recipe():
    assert make_config("ccnet", "camvid", "tutorial", lr=0.3, epochs=2).lr == 0.3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"recipe": "tutorail"}, "--recipe 'tutorail' is unknown; did you mean tutorial?"),
        ({"model": "ccnet_r50", "recipe": "tutorial"}, "no settings for --model ccnet_r50, only"),
        ({"learning_rate": 1.0}, "unknown training setting 'learning_rate'"),
        ({"epoch": 1}, "unknown training setting 'epoch'; did you mean epochs"),
        ({"lr": -1.0}, "--lr is -1.0, it must be above 0"),
        ({"lr": float("nan")}, "--lr is nan, it must be above 0"),
        ({"lr": "fast"}, "--lr is 'fast', it must be of type float"),
        ({"batch_size": 0}, "--batch-size is 0, it must be at least 1"),
        ({"batch_size": 2.0}, r"--batch-size is 2.0, it must be of type int \| 'auto'$"),
        ({"batch_size": True}, "--batch-size is True, it must be of type int"),
        ({"mean": (123.675, 116.28, 103.53)}, "--mean is 123.675 116.28 .*, .* from 0 to 1"),
        ({"channels": "brg"}, "--channels is 'brg', it must be one of .*; did you mean"),
        ({"std": (1.0, 0.0, 1.0)}, "--std is 1.0 0.0 1.0, it must be three numbers above 0"),
        ({"image_size": (0, 32)}, "--image-size is 0 32, it must be at least 1 pixel"),
        ({"image_size": (32,)}, r"--image-size is \(32,\), it must be of type tuple\[int, int\]"),
        ({"momentum": 1.0}, "--momentum is 1.0, it must be from 0 to below 1"),
        ({"scale": (2.0, 0.5)}, "--scale is 2.0 0.5, it must be MIN MAX"),
        ({"schedule": "poli"}, "--schedule is 'poli', it must be one of .*; did you mean poly"),
        ({"hflip": 1.5}, "--hflip is 1.5, it must be from 0 to 1"),
        ({"eval_every": 0}, "--eval-every is 0, it must be at least 1"),
        ({"seed": -1}, "--seed is -1, it must be from 0"),
        ({"devices": 0}, "--devices is 0, it must be at least 1"),
        ({"override": ("channels",)}, "--override takes KEY=VALUE, .* got 'channels'"),
        ({"override": ("num_classes=3",)}, "the data set decides it"),
    ],
)
def test_names_what_does_not_fit(fields, message):
    with pytest.raises(ConfigError, match=message):
        make_config(**fields)


def test_every_numeric_field_rejects_minus_one():
    types = {field.name: str(field.type) for field in dataclasses.fields(TrainConfig)}
    numeric = [name for name, kind in types.items() if "int" in kind or "float" in kind]
    numeric = [name for name in numeric if types[name][:5] not in ("tuple", "typin")]
    assert len(numeric) > 15
    for name in numeric:
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} is -1"):
            make_config(**{name: -1})


@pytest.mark.parametrize("content", DAMAGED)
def test_unreadable_file_is_named(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="config.json: no readable training config"):
        TrainConfig.load(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("0.5", 0.5), ("1,1,2", (1, 1, 2)), ("(3,)", (3,)), ("true", True),
        ("False", False), ("relu", "relu"), ("none", None), ("'none'", "none"), ("a=b", "a=b"),
    ],
)  # fmt: skip
def test_override_values(text, value):
    assert parse_overrides([f"backbone.width={text}"]) == {"backbone.width": value}


def test_differences_leave_out_what_does_not_change_the_run():
    there = make_config(workdir="a", devices=1, checkpoint_every=1.0, max_steps=1)
    here = make_config(workdir="b", devices=2, checkpoint_every=2.0, lr=0.5, image_size=(8, 9))
    assert differences(there, here) == {
        "image_size": "--image-size was 64 64, now 8 9",
        "lr": f"--lr was {there.lr}, now 0.5",
    }


def test_default_workdir_names_model_data_and_recipe():
    assert str(make_config("ccnet", "camvid").directory) == "runs/ccnet-camvid"
    tutorial = make_config("ccnet", "camvid", "tutorial")
    assert str(tutorial.directory) == "runs/ccnet-camvid-tutorial"


def test_resolved_config_holds_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = resolved(make_config("ccnet", "camvid", data_dir="photos"))
    assert config.data_dir == str(tmp_path / "photos")
    assert resolved(make_config()).data_dir is None


def test_paths_that_the_shell_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    paths = {"data_dir": "~/photos", "init": "~/a.pth", "cache_dir": "~/c", "workdir": "~/run"}
    config = resolved(make_config(**paths))
    found = {name: getattr(config, name) for name in paths}
    assert found == {
        "data_dir": "/home/me/photos",
        "init": "/home/me/a.pth",
        "cache_dir": "/home/me/c",
        "workdir": "/home/me/run",
    }
    assert resolved(make_config(init="hf:owner/name")).init == "hf:owner/name"
    assert resolved(make_config(init="a.pth")).init == str(tmp_path / "a.pth")


def test_a_relative_path_of_an_older_run_is_the_same_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    older = make_config(workdir=str(tmp_path), init="a.pth")
    (tmp_path / "config.json").write_text(json.dumps(older.to_json()))
    assert not check_workdir(resolved(older))


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_result_is_named(content, tmp_path):
    assert read_result(tmp_path) is None
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(ConfigError, match="result.json is damaged .*: delete it to evaluate again"):
        read_result(tmp_path)


@pytest.mark.parametrize("below", ["", "sub", "sub/sub"])
def test_workdir_in_a_file_is_named(below, tmp_path):
    (tmp_path / "file").write_text("")
    config = make_config(workdir=str(tmp_path / "file" / below))
    with pytest.raises(ConfigError, match="--workdir .*: .*/file is a file, choose another folder"):
        check_workdir(config)
