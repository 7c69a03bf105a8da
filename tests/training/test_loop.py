import dataclasses
import functools
import json
import os
import re
import signal
import threading

import cv2
import jax
import numpy as np
import pytest

from flaxseg import native
from flaxseg.data.shapes import LABELS
from flaxseg.errors import CheckpointError, ConfigError, TrainingError
from flaxseg.labels import IGNORE
from flaxseg.model_dir import read_header
from flaxseg.pictures import overlay
from flaxseg.preprocess import Preprocess
from flaxseg.training import fit, loop
from flaxseg.training.blueprint import Blueprint
from flaxseg.training.feed import Feed
from flaxseg.training.program import StepProgram
from flaxseg.training.workdir import CHECKPOINTS

pytestmark = pytest.mark.usefixtures("compiled_once")

STEPS, EPOCHS = 6, 3


@pytest.fixture
def small_run(tiny_run):
    """A run of the network that compiles fastest, with dropout: resumed, it draws the same masks.

    A resumed CCNet is compared in `test_killed`.
    """
    override = (*tiny_run.keywords["override"][:-1], "dropout=0.1")
    return functools.partial(tiny_run, override=override, lr=0.05)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Where the run lies that nothing interrupts."""
    return tmp_path_factory.mktemp("whole") / "run"


@pytest.fixture
def uninterrupted(whole, small_run, quiet):
    """The config of that run, trained once."""
    config = small_run(workdir=str(whole))
    fit(config, quiet)
    return config


def page_of(config):
    """The page of a run, but for the name of its folder, which stands in some pictures, too."""
    text = (config.directory / "report.html").read_text()
    text = re.sub(r"data:image/png[^\"]+", "", text)
    return text.replace(str(config.directory), "FOLDER")


@pytest.fixture
def assert_same_end(uninterrupted, last_snapshot):
    """Compares a finished run with the uninterrupted one, bit by bit."""

    def compare(config):
        ours, theirs = last_snapshot(config), last_snapshot(uninterrupted)
        for a, b in zip(jax.tree.leaves(ours.state), jax.tree.leaves(theirs.state), strict=True):
            np.testing.assert_array_equal(a, b)
        assert ours.position == theirs.position
        assert ours.history == theirs.history
        files = ("metrics.csv", "metrics.jsonl", "result.json", "model/model.safetensors")
        for name in (*files, "train_batch.png", "labels.png"):
            same = (config.directory / name, uninterrupted.directory / name)
            assert same[0].read_bytes() == same[1].read_bytes(), name
        assert page_of(config) == page_of(uninterrupted)

    return compare


@pytest.fixture
def harmless_signals():
    """A signal that reaches the process outside of `fit` must not end the test session."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, before)


def test_leaves_a_self_describing_directory(uninterrupted):
    directory = uninterrupted.directory
    names = {path.name for path in directory.iterdir()}
    assert names == {
        "config.json", "checkpoints", "metrics.csv", "metrics.jsonl", "tensorboard", "curves.png",
        "confusion.png", "overlays", "model", "result.json", "train_batch.png", "labels.png",
        "report.html",
    }  # fmt: skip
    assert json.loads((directory / "config.json").read_text()) == uninterrupted.to_json()
    assert sorted(p.name for p in (directory / "overlays").iterdir()) == [
        "epoch_002.png",
        "epoch_003.png",
    ]
    result = json.loads((directory / "result.json").read_text())
    assert result["step"] == STEPS
    assert [p.name for p in (directory / "checkpoints/best").iterdir()] == [
        str(result["best_step"])
    ]


def test_model_directory_is_the_best_model(uninterrupted, last_snapshot):
    loaded = native.load_with_meta(uninterrupted.directory / "model")
    assert loaded.labels.name == "shapes"
    assert loaded.model.config.width == 16
    result = json.loads((uninterrupted.directory / "result.json").read_text())
    assert 0 < result["best_miou"] <= 1
    (step,) = read_header(uninterrupted.directory / "model").origin
    assert step.scores["miou"] == result["best_miou"] and step.data == "shapes"
    assert step.recipe == uninterrupted.recipe and len(step.fingerprint) == 64


def test_finished_run_is_only_reported(uninterrupted, quiet, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.directory.rglob("*")}
    monkeypatch.setattr(loop.Setup, "of", lambda *_: pytest.fail("the run starts again"))
    result = fit(uninterrupted, quiet)
    assert result.finished and result.step == STEPS
    assert "is finished: best mIoU" in quiet.export_text()
    assert {p: p.stat().st_mtime_ns for p in uninterrupted.directory.rglob("*")} == before


class CountingPreprocess(Preprocess):
    """Remembers the images of each of its traces."""

    def __init__(self):
        super().__init__()
        object.__setattr__(self, "traces", [])

    def __call__(self, images):
        self.traces.append(images.shape)
        return super().__call__(images)


@pytest.fixture
def setups(monkeypatch):
    """The setups of the runs to come, whose compilations can be counted."""
    of, made = loop.Setup.of, []

    def keep(config):
        made.append(dataclasses.replace(of(config), preprocess=CountingPreprocess()))
        return made[-1]

    monkeypatch.setattr(loop.Setup, "of", keep)
    return made


def test_each_program_compiles_once_in_a_whole_run(small_run, tmp_path, quiet, setups):
    fit(small_run(workdir=str(tmp_path), max_steps=3), quiet)
    assert fit(small_run(workdir=str(tmp_path)), quiet).finished
    first, resumed = setups
    batch = (8, 32, 32, 3)
    assert first.preprocess.traces == [batch]
    # The step, and the evaluator in two evaluations of several batches each, overlays included.
    assert resumed.preprocess.traces == [batch, batch]


def test_stop_before_the_first_step_initialises_nothing(
    small_run, tmp_path, quiet, monkeypatch, harmless_signals, capfd
):
    of = loop.Setup.of

    def terminate(config):
        os.kill(os.getpid(), signal.SIGTERM)
        return of(config)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Setup, "of", terminate)
        patch.setattr(loop.Setup, "init", lambda self: pytest.fail("the network is made"))
        result = fit(small_run(workdir=str(tmp_path)), quiet)
    assert (result.step, result.finished) == (0, False)
    assert "stopped by SIGTERM after step 0" in quiet.export_text()
    assert capfd.readouterr().err == (
        "stopping after this step and saving; Ctrl-C again quits at once\n"
    )


def test_other_images_are_another_run(small_run, tmp_path, setups, quiet, last_snapshot):
    config = small_run(workdir=str(tmp_path), max_steps=1)
    fit(config, quiet)
    message = r"training_images was 20, now 19\): .*, or --allow-changes to go on from the last"
    with pytest.raises(CheckpointError, match=message):
        last_snapshot(dataclasses.replace(config, limit=19))


@pytest.fixture
def handed(monkeypatch):
    """Keeps the pictures and label maps of every step, as they are handed to it."""
    call, batches = StepProgram.__call__, []

    def keep(self, state, image, label):
        batches.append((np.asarray(image), np.asarray(label)))
        return call(self, state, image, label)

    monkeypatch.setattr(StepProgram, "__call__", keep)
    return batches


def assert_shows(path, images, truths):
    """Whether train_batch.png has the pixels of a batch of 8, enlarged 8 times, in 2 columns."""
    sheet = cv2.imread(str(path))[..., ::-1]
    for i, (image, truth) in enumerate(zip(images, truths, strict=True)):
        top, left = 48 + i // 2 * 288, 8 + i % 2 * 528
        photo, blend = (sheet[top : top + 256, x : x + 256] for x in (left, left + 264))
        np.testing.assert_array_equal(photo[::8, ::8], image)
        known, expected = truth != IGNORE, overlay(image, truth, LABELS, 0.65)
        np.testing.assert_array_equal(blend[::8, ::8][known], expected[known])


def test_stopped_and_resumed_ends_equal(small_run, tmp_path, quiet, assert_same_end, handed):
    for steps in (3, 4):
        result = fit(small_run(workdir=str(tmp_path), max_steps=steps), quiet)
        assert_shows(tmp_path / "train_batch.png", *handed[0])
        assert not result.finished and result.step == steps
        assert "the same command continues" in " ".join(quiet.export_text().split())
    assert fit(small_run(workdir=str(tmp_path)), quiet).finished
    assert_same_end(small_run(workdir=str(tmp_path)))


def test_the_step_compiles_while_its_state_is_drawn(small_run, tmp_path, quiet, monkeypatch):
    """The state waits here for the compiler to have begun, which a compiler after it would not."""
    begun, init = threading.Event(), Blueprint.init

    def refuse(*args, **options):
        begun.set()
        raise TrainingError("this step cannot be compiled")

    def drawn(self, start=None):
        assert begun.wait(60)
        return init(self, start)

    monkeypatch.setattr(StepProgram, "of", refuse)
    monkeypatch.setattr(Blueprint, "init", drawn)
    with pytest.raises(TrainingError, match="this step cannot be compiled"):
        fit(small_run(workdir=str(tmp_path)), quiet)


@pytest.mark.parametrize("phase", ["compilation", "evaluation"])
def test_sigterm_saves_and_ends_equal(
    phase, small_run, tmp_path, quiet, monkeypatch, harmless_signals, assert_same_end
):
    original = Feed.take if phase == "compilation" else loop.RunLog.step

    def terminate(self, *args):
        # The last step's log row comes right before the evaluation of the last epoch.
        if phase == "compilation" or args[0].step == STEPS:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args)

    config = small_run(workdir=str(tmp_path))
    with monkeypatch.context() as patch:
        owner = Feed if phase == "compilation" else loop.RunLog
        patch.setattr(owner, original.__name__, terminate)
        result = fit(config, quiet)
    assert not result.finished
    assert result.step == (1 if phase == "compilation" else STEPS)
    assert "stopped by SIGTERM" in quiet.export_text()
    assert fit(config, quiet).finished
    assert_same_end(config)


def test_loss_that_is_not_finite_stops_the_run(small_run, tmp_path, quiet, monkeypatch):
    take, taken = Feed.take, []

    def poison(self):
        """Breaks one parameter after the second step."""
        if self.step == 2:
            bias = self.state.params["head"]["bias"]
            bias.set_value(bias.get_value() * np.nan)
        train_one(self)

    train_one = loop._Run._train_one
    monkeypatch.setattr(loop._Run, "_train_one", poison)
    monkeypatch.setattr(Feed, "take", lambda self: taken.append(take(self)) or taken[-1])
    with pytest.raises(TrainingError, match="the loss is nan at step 3 .epoch 2.") as error:
        fit(small_run(workdir=str(tmp_path)), quiet)
    last = tmp_path / CHECKPOINTS / "last"
    assert f"last good checkpoint: the one of step 2 in {tmp_path / CHECKPOINTS}" in str(
        error.value
    )
    for index in taken[2].index:
        assert f"shapes/train/{index:06d}" in str(error.value)
    assert sorted(path.name for path in last.iterdir()) == ["1", "2"]


def test_other_settings_in_the_same_directory_are_refused(uninterrupted, small_run, quiet):
    config = small_run(workdir=uninterrupted.workdir, lr=0.5, image_size=(16, 16))
    message = r"--image-size was 32 32, now 16 16; --lr was 0.05, now 0.5\): choose another --work"
    with pytest.raises(ConfigError, match=message):
        fit(config, quiet)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "ccnot"}, "no network is called 'ccnot'; did you mean ccnet"),
        ({"data": "shape"}, "no data set is called 'shape'; did you mean shapes"),
        ({"override": ("widht=3",)}, "no field 'widht'; did you mean width"),
        ({"batch_size": 9, "devices": 2}, "--batch-size is 9, which 2 devices cannot share"),
        ({"batch_size": 64}, "fewer than --batch-size 64"),
    ],
)
def test_mistakes_leave_no_directory_behind(fields, message, small_run, tmp_path, quiet):
    with pytest.raises(ValueError, match=message):
        fit(small_run(workdir=str(tmp_path / "run"), **fields), quiet)
    assert not (tmp_path / "run").exists()


def test_directory_of_something_else_is_refused(small_run, tmp_path, quiet):
    (tmp_path / "config.json").write_text('{"editor": "vim"}')
    with pytest.raises(ConfigError, match="unknown training setting 'editor'.*another --workdir"):
        fit(small_run(workdir=str(tmp_path)), quiet)
    assert (tmp_path / "config.json").read_text() == '{"editor": "vim"}'


def test_lines_for_a_log_file(uninterrupted, small_run, tmp_path, quiet):
    fit(small_run(workdir=str(tmp_path), max_steps=4), quiet)
    text = quiet.export_text()
    assert "20 training and 20 validation images, 1 x cpu, 6 steps (2 per epoch)" in text
    assert "epoch 2/3  step 4/6  loss " in text
    assert "img/s" in text
    assert re.search(r"0\.04 M parameters, \d+ MiB per device", text)
    assert re.search(r"epoch 2/3 took 0:00:\d\d, \d+\.\d img/s", text)
