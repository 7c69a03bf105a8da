"""Runs that end before their last step: by their scores, or by the clock."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxseg.inference.metrics import Scores
from flaxseg.training import ending, fit, loop
from flaxseg.training.ending import is_still_over
from flaxseg.training.logging import read_rows
from flaxseg.training.runs.folder import read_run
from flaxseg.training.setup import Setup
from flaxseg.training.step import StepMetrics

SCORES = [3, 0, 5, 1, 4, 0, 5, 0, 2, 0, 6, 0, 1, 0, 2, 0, 3]
"""By step, from 2; an epoch has two steps."""


class Killed(Exception):
    """Ends a run at a place where nothing is saved."""


@pytest.fixture
def stage(tiny_run, tmp_path, monkeypatch):
    """Runs of 9 epochs whose steps take a second by their clock, and whose scores are `SCORES`."""
    at = types.SimpleNamespace(seconds=100.0, step=0, killed_at=None)
    setup = Setup.of(tiny_run())
    state = jax.tree.map(jnp.zeros_like, setup.abstract_state())

    def advance(state, image, label):
        at.seconds += 1
        metrics = StepMetrics(*map(np.float32, [1, 1, 1]))
        return dataclasses.replace(state, step=state.step + 1), metrics

    def score(params, stats, batches, keep):
        if at.step == at.killed_at:
            raise Killed
        right = 100 * SCORES[at.step - 2]
        matrix = np.zeros((6, 6), np.int64)
        matrix[0, :2] = right, 1000 - right
        return Scores.from_matrix(matrix), {}

    def evaluated(self, state, guard):
        at.step = int(state.step)
        return state

    advance.summary = lambda: "no network"
    monkeypatch.setattr(Setup, "program", property(lambda self: advance))
    monkeypatch.setattr(Setup, "init", lambda self, start: state)
    monkeypatch.setattr(Setup, "evaluator", property(lambda self: score))
    monkeypatch.setattr(Setup, "evaluated", evaluated)
    monkeypatch.setattr(loop._Run, "_draw_overlays", lambda *_: None)
    monkeypatch.setattr(loop, "draw_beginning", lambda *_: None)
    monkeypatch.setattr(ending, "time", types.SimpleNamespace(monotonic=lambda: at.seconds))
    fields = {"epochs": 9, "eval_every": 1, "limit": 16, "checkpoint_every": 60.0, "metrics": ()}
    at.config = tiny_run(workdir=str(tmp_path / "run"), **fields, train_accuracy=False)
    return at


def steps_evaluated(config):
    rows = read_rows(config.directory / "metrics.csv")
    return [int(row["step"]) for row in rows if row["miou"]]


def files(config):
    """What a run leaves, but for its name."""
    names = ("metrics.csv", "metrics.jsonl", "result.json", "report.html")
    texts = [(config.directory / name).read_text() for name in names]
    return [text.replace(str(config.directory), "FOLDER") for text in texts]


def in_parts(config, stage, quiet, *stops):
    """The run, interrupted after some steps and killed in its evaluation after step 10."""
    config = dataclasses.replace(config, workdir=config.workdir + "-in-parts")
    for stop in stops:
        fit(dataclasses.replace(config, max_steps=stop), quiet)
        stage.seconds += 1000  # nobody is at work
    stage.killed_at = 10
    with pytest.raises(Killed):
        fit(config, quiet)
    stage.killed_at = None
    return config


def test_no_better_score(stage, quiet, last_snapshot):
    config = dataclasses.replace(stage.config, patience=3)
    result = fit(config, quiet)
    assert (result.step, result.finished, result.ended_by) == (10, True, {"patience": 3})
    assert (result.best_step, steps_evaluated(config)) == (4, [2, 4, 6, 8, 10])
    assert (
        "--patience 3 ends the run after step 10: 3 evaluations without a better mIoU than that of "
        "step 4; a larger value goes on" in quiet.export_text()
    )
    *_, text = files(config)
    assert "Finished: --patience 3 ended it after 10 of 18 steps." in text
    assert "--patience 6 --" in text and "--allow-changes" not in text
    assert read_run(config.directory).state == "finished"
    parts = in_parts(config, stage, quiet, 7, 8, 9)
    assert fit(parts, quiet).finished and files(parts) == files(config)
    assert last_snapshot(parts).history == last_snapshot(config).history


def test_more_patience_goes_on(stage, quiet):
    whole = dataclasses.replace(stage.config, patience=5)
    assert fit(whole, quiet).ended_by == {}
    config = dataclasses.replace(stage.config, workdir=whole.workdir + "-first-less")
    fit(dataclasses.replace(config, patience=2), quiet)
    quiet.export_text()
    for patience in (2, 1):
        again = fit(dataclasses.replace(config, patience=patience), quiet)
        assert (again.step, again.ended_by) == (8, {"patience": 2})
        assert "of 8, where --patience 2 ended it; model" in quiet.export_text()
    result = fit(dataclasses.replace(config, patience=5), quiet)
    assert (result.step, result.best_step, result.ended_by) == (18, 12, {})
    assert files(config) == files(whole)


def test_the_clock(stage, quiet, last_snapshot):
    config = dataclasses.replace(stage.config, hours=4.5 / 3600)
    result = fit(config, quiet)
    assert (result.step, result.finished, result.best_step) == (5, True, 4)
    assert steps_evaluated(config) == [2, 4, 5]
    assert "--hours 0.00125 are over after step 5; a larger value goes on" in quiet.export_text()
    parts = dataclasses.replace(config, workdir=config.workdir + "-in-parts")
    for stop in (1, 3, None):
        fit(dataclasses.replace(parts, max_steps=stop), quiet)
        stage.seconds += 1000  # nobody is at work
    assert files(parts) == files(config)
    assert last_snapshot(parts).history == last_snapshot(config).history
    assert last_snapshot(parts).history.seconds == 5
    assert fit(parts, quiet).step == 5
    assert fit(dataclasses.replace(parts, hours=None), quiet).step == 18
    # The evaluation out of turn is done again, or its row and its score would be lost.
    assert steps_evaluated(parts) == [2, 4, 5, *range(6, 19, 2)]


def test_killed_in_the_last_evaluation(stage, quiet):
    config = dataclasses.replace(stage.config, hours=9.5 / 3600, patience=9)
    parts = in_parts(config, stage, quiet)
    assert fit(dataclasses.replace(parts, max_steps=12), quiet).step == 11
    assert steps_evaluated(parts) == [2, 4, 6, 8, 10, 11]


def test_what_is_still_over(stage):
    assert is_still_over({}, stage.config)
    for hours, over in ((None, False), (0.5, True), (1.0, True), (1.5, False)):
        assert is_still_over({"hours": 1.0}, dataclasses.replace(stage.config, hours=hours)) == over
