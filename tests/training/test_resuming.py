"""A run goes on with other settings than it had."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.training import TrainConfig, fit, make_config
from flaxseg.training.logging import read_rows
from flaxseg.training.resuming import (
    Calendar,
    Change,
    check_identity,
    find_changes,
    had_evaluation,
    write_history,
)
from flaxseg.training.setup import Setup
from flaxseg.training.workdir import check_workdir

pytestmark = pytest.mark.usefixtures("compiled_once")

# What a resumed run may do with each setting. A new one has to be entered here.
DECIDED = {
    "free": """workdir allow_changes data_dir recipe config log_every checkpoint_every compile_cache
        cache_dir max_steps log_samples on_bad_sample check_labels loader_threads keep_decoded
        max_pixels eval_every eval_canvas eval_batch_size metrics train_accuracy wandb devices fsdp
        distributed coordinator num_processes process_id patience hours""",
    "free, but scores begin anew": "eval_size eval_base_size eval_multiple eval_window eval_stride",
    "allowed": """epochs steps seed dtype matmul_precision limit missing_mask batch_size image_size
        resize scale
        scale_law base_size cat_max_ratio rare_crop rotation hflip flip_pairs vflip jitter color
        mean std channels
        loss aux_loss aux_weight class_weights label_smoothing loss_average ohem_threshold
        ohem_min_kept focal_gamma loss_per_image loss_align_corners lr nesterov betas no_decay
        head_lr layer_decay accumulate schedule min_lr schedule_epochs schedule_by warmup
        warmup_epochs warmup_steps warmup_ratio after_warmup step_size milestones gamma power
        swa_lr""",
    "allowed, but scores begin anew": "data interpolation",
    "fixed": """model override init freeze optimizer momentum weight_decay clip_grad ema swa_start
        swa_every""",
}


def decision(name):
    kind = "free" if name in TrainConfig.FREE else "allowed"
    if name in TrainConfig.FIXED:
        return "fixed" if kind == "allowed" else "both free and fixed"
    return kind + ", but scores begin anew" * (name in TrainConfig.SCORED)


def test_every_setting_is_decided():
    named = {name: kind for kind, names in DECIDED.items() for name in names.split()}
    fields = [field.name for field in dataclasses.fields(TrainConfig)]
    assert {name: decision(name) for name in fields} == named


def history(config):
    path = config.directory / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """Where that run is trained, a single time."""
    return tmp_path_factory.mktemp("once") / "run"


@pytest.fixture
def finished(once, tiny_run, tmp_path, quiet):
    """The config of a finished run: 3 epochs of 2 steps, evaluated after epochs 2 and 3."""
    if not once.exists():
        assert fit(tiny_run(workdir=str(once)), quiet).finished
    shutil.copytree(once, tmp_path / "run")
    return tiny_run(workdir=str(tmp_path / "run"))


def test_a_finished_run_is_prolonged(finished, quiet):
    longer = dataclasses.replace(finished, epochs=5, lr=0.01)
    with pytest.raises(
        ConfigError, match="--epochs was 3, now 5.*or --allow-changes to go on from"
    ):
        fit(longer, quiet)
    assert (finished.directory / "result.json").exists()
    longer = dataclasses.replace(longer, allow_changes=True)
    stopped = fit(dataclasses.replace(longer, max_steps=8), quiet)
    assert (stopped.step, stopped.finished) == (8, False)
    assert not (finished.directory / "result.json").exists()
    said = quiet.export_text()
    assert "--epochs was 3, now 5 from step 6 on" in said
    assert "a whole run of 10 steps with these settings: the next learning rate is " in said
    rate = np.asarray(Setup.of(longer).schedule(6)).item()
    assert f"rate is {rate:.3g}" in said and 0 < rate < 0.01
    result = fit(dataclasses.replace(longer, allow_changes=False), quiet)
    assert (result.step, result.finished) == (10, True)
    assert history(finished) == [
        {"step": 6, "flag": "--epochs", "old": 3, "new": 5},
        {"step": 6, "flag": "--lr", "old": finished.lr, "new": 0.01},
    ]
    rows = read_rows(finished.directory / "metrics.csv")
    # The last evaluation of the short run is kept, though epoch 3 of 5 is not due.
    assert [int(row["step"]) for row in rows if row["miou"]] == [4, 6, 8, 10]
    assert fit(longer, quiet).step == 10
    assert "is finished" in quiet.export_text()


def test_killed_before_the_first_checkpoint_of_the_new_settings(finished, quiet, last_snapshot):
    longer = dataclasses.replace(finished, epochs=4, allow_changes=True)
    fit(dataclasses.replace(longer, max_steps=6), quiet)
    assert fit(longer, quiet).step == 8
    assert len(history(finished)) == 1


def test_what_was_changed_back_before_it_counted_is_no_history(finished, quiet):
    longer = dataclasses.replace(finished, epochs=4, allow_changes=True)
    fit(dataclasses.replace(longer, max_steps=6), quiet)
    again = fit(dataclasses.replace(finished, allow_changes=True), quiet)
    assert again.finished and again.step == 6
    assert not (finished.directory / "history.jsonl").exists()


@pytest.mark.parametrize("fields", [{"lr": 0.01}, {"epochs": 2}])
def test_nothing_is_left_to_train(fields, finished, quiet):
    config = dataclasses.replace(finished, **fields, allow_changes=True)
    with pytest.raises(ConfigError, match="has made 6 steps, .* ends at step [46]: give more --ep"):
        fit(config, quiet)
    assert fit(finished, quiet).finished


def test_free_settings_change_no_weight(tiny_run, tmp_path, finished, quiet, last_snapshot):
    config = tiny_run(workdir=str(tmp_path / "other"))
    fit(dataclasses.replace(config, max_steps=3), quiet)
    free = {"eval_batch_size": 1, "log_every": 1, "eval_every": 3, "loader_threads": 1}
    config = dataclasses.replace(config, **free)
    assert fit(config, quiet).finished
    ours, theirs = last_snapshot(config).state, last_snapshot(finished).state
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (config.directory / "history.jsonl").exists()


def test_other_scores_begin_anew(tiny_run, tmp_path, quiet, last_snapshot):
    config = tiny_run(workdir=str(tmp_path))
    before = fit(dataclasses.replace(config, max_steps=5), quiet)
    assert before.best_step == 4
    config = dataclasses.replace(config, eval_size=(48, 48))
    result = fit(config, quiet)
    assert result.best_step == 6 and result.finished
    said = quiet.export_text()
    assert "--eval-size was 32 32, now 48 48 from step 5 on" in said
    assert "the best model is chosen anew" in said and "the schedule is that" not in said
    assert [line["flag"] for line in history(config)] == ["--eval-size"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"optimizer": "adam"}),
        ({}, {"momentum": 0.0}),
        ({}, {"weight_decay": 0.0}),
        ({}, {"clip_grad": 1.0}),
        ({}, {"override": ("depth=2",)}),
        ({}, {"init": "other.pth"}),
        ({}, {"freeze": ("encoder",)}),
        ({}, {"ema": 0.9}),
        ({"swa_start": 1}, {"batch_size": 4}),
        ({"swa_start": 1}, {"swa_start": 2}),
    ],
)
def test_what_no_checkpoint_outlives_is_refused(before, after, tmp_path):
    there = make_config(workdir=str(tmp_path), **before)
    (tmp_path / "config.json").write_text(json.dumps(there.to_json()))
    here = dataclasses.replace(there, **after, lr=0.3, allow_changes=True)
    with pytest.raises(ConfigError, match="belongs to another run") as error:
        check_workdir(here)
    assert "--" + next(iter(after)).replace("_", "-") + " was" in str(error.value)
    assert "--lr" not in str(error.value) and "--allow-changes" not in str(error.value)


def test_other_strengths_are_allowed(tmp_path):
    there = make_config(workdir=str(tmp_path), ema=0.9, clip_grad=1.0)
    (tmp_path / "config.json").write_text(json.dumps(there.to_json()))
    new = {"momentum": 0.8, "weight_decay": 0.1, "ema": 0.99, "clip_grad": 2.0}
    assert check_workdir(dataclasses.replace(there, **new, allow_changes=True))
    assert not check_workdir(there)


def identity(config, **more):
    return {"training_images": 20, "validation_images": 5, **more, "settings": config.to_json()}


def test_numbers_of_images(tmp_path):
    config = make_config(allow_changes=True)
    there = identity(config)
    here = identity(config, training_images=24, validation_images=6)
    check_identity(tmp_path, there, here)
    check_identity(tmp_path, there, identity(make_config(), validation_images=6))
    with pytest.raises(CheckpointError, match=r"was 20, now 24; .*: choose another --workdir, or"):
        check_identity(tmp_path, there, here | {"average": "Swa"} | {"settings": {}})
    assert find_changes(there, here) == [
        Change("training images", 20, 24, False),
        Change("validation images", 5, 6, True),
    ]
    del there["settings"]  # as in older checkpoints
    assert find_changes(there, identity(config)) == []
    assert not had_evaluation(there, 4)


def test_the_calendar_of_the_run_before():
    there = identity(make_config(batch_size=8, epochs=3, eval_every=2))
    assert [step for step in range(8) if had_evaluation(there, step)] == [4, 6]
    calendar = Calendar.of(make_config(batch_size=8, steps=5, eval_every=3), 20)
    assert [step for step in range(8) if calendar.wants_evaluation(step)] == [5, 6]


def test_history_keeps_what_was_trained(tmp_path):
    path = tmp_path / "history.jsonl"
    write_history(tmp_path, 3, [Change("--lr", 0.1, 0.2)])
    path.write_text(path.read_text() + "a note of mine\n")
    write_history(tmp_path, 5, [Change("--lr", 0.2, 0.3), Change("--image-size", [8, 8], [9, 9])])
    write_history(tmp_path, 5, [Change("--lr", 0.2, 0.4)])
    first, note, second = path.read_text().splitlines()
    assert json.loads(first)["new"] == 0.2 and note == "a note of mine"
    assert json.loads(second) == {"step": 5, "flag": "--lr", "old": 0.2, "new": 0.4}
