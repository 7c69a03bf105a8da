import importlib.util
import json
import math
import sys
import types

import cv2
import numpy as np
import pytest
from matplotlib import colormaps

from flaxseg.errors import ConfigError
from flaxseg.inference.metrics import Scores
from flaxseg.report.confusion import draw_confusion
from flaxseg.training import make_config
from flaxseg.training.curves import draw_curves
from flaxseg.training.logging import MetricsFile, RunLog, more_columns, read_rows
from flaxseg.training.monitor import Reading
from flaxseg.training.wandb_log import WandbLog, check_wandb

CLASSES = ("sky", "road")
SCORES = Scores.from_matrix(np.array([[3, 1], [0, 4]]))


def reading(step):
    return Reading(step, loss=1 / step, grad_norm=2.0, lr=0.1, index=np.zeros(1, np.int32))


def run(workdir, first, last, losses=(), evaluate_first=False):
    """Logs the steps first to last, with an evaluation after every third."""
    log = RunLog(workdir, CLASSES, log_every=2, total_steps=7, start=first - 1, losses=losses)
    with log:
        if evaluate_first:
            log.scores(SCORES, first - 1, epoch=1)
        for step in range(first, last + 1):
            log.step(reading(step), epoch=1)
            if step % 3 == 0:
                log.scores(SCORES, step, epoch=1)


def test_rows_of_steps_and_evaluations(tmp_path):
    run(tmp_path, 1, 7)
    rows = read_rows(tmp_path / "metrics.csv")
    assert [(row["step"], bool(row["loss"]), bool(row["miou"])) for row in rows] == [
        ("2", True, False), ("3", False, True), ("4", True, False), ("6", True, False),
        ("6", False, True), ("7", True, False),
    ]  # fmt: skip
    assert float(rows[0]["loss"]) == math.fsum([1, 1 / 2]) / 2
    assert float(rows[-1]["loss"]) == 1 / 7
    assert (float(rows[1]["iou/sky"]), float(rows[1]["iou/road"])) == (0.75, 0.8)
    assert float(rows[1]["pixel_accuracy"]) == 0.875


def test_resumed_file_equals_the_uninterrupted_one(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    run(whole, 1, 7)
    run(parts, 1, 6)
    with (parts / "metrics.csv").open("a") as file:
        file.write("7,1,0.14")  # cut off by a kill
    # Back to the checkpoint of step 3, saved before its evaluation, with one loss pending.
    run(parts, 4, 7, losses=(1 / 3,), evaluate_first=True)
    assert (parts / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_terms_of_a_loss_have_columns_and_outlive_an_interruption(tmp_path):
    def log(workdir, first, last, terms=None):
        columns = more_columns(make_config(), ("dice",))
        options = {"log_every": 2, "total_steps": 4, "more": columns, "terms": terms or {}}
        losses = terms["dice"] if terms else ()
        with RunLog(workdir, CLASSES, start=first - 1, losses=losses, **options) as run:
            for step in range(first, last + 1):
                run.step(reading(step)._replace(terms={"dice": 1 / step}), epoch=1)
            return run.terms

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    log(whole, 1, 4)
    log(parts, 4, 4, log(parts, 1, 3))
    rows = read_rows(whole / "metrics.csv")
    assert [row["loss/dice"] for row in rows] == [row["loss"] for row in rows]
    for name in ("metrics.csv", "metrics.jsonl"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()


def test_absent_class_has_an_empty_cell(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv", CLASSES, step=0)
    file.write(1, 1, {"miou": 0.5, "iou/sky": 0.5, "iou/road": math.nan})
    (row,) = read_rows(file.path)
    assert (row["iou/sky"], row["iou/road"]) == ("0.5", "")


def test_writes_tensorboard_events(tmp_path):
    run(tmp_path, 1, 3)
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    for tag in (b"train/grad_norm", b"train/loss", b"train/lr", b"val/miou", b"val/iou/road"):
        assert tag in content


def test_tensorboard_is_not_imported_before_the_first_step(tmp_path):
    with RunLog(tmp_path, CLASSES, log_every=2, total_steps=7) as log:
        pass
    assert not (tmp_path / "tensorboard").exists()
    with log:
        log.step(reading(1), epoch=1)
    assert (tmp_path / "tensorboard").exists()


def test_json_lines_hold_the_numbers_of_the_table(tmp_path):
    run(tmp_path, 1, 4)
    # What an older version left has no such file, and what a kill left has half a line.
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "lo')
    run(tmp_path, 5, 7)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rows = read_rows(tmp_path / "metrics.csv")
    assert [line["step"] for line in lines] == [2, 3, 4, 6, 6, 7]
    for line, row in zip(lines, rows, strict=True):
        assert line == {name: float(text) for name, text in row.items() if text}
    assert lines[1]["iou/road"] == 0.8 and "loss" not in lines[1]


@pytest.mark.parametrize("count", [2, 150])
def test_confusion_picture(count, tmp_path):
    matrix = np.diag(np.arange(count)) * 30
    matrix[1:, 0] += 10
    classes = [f"class number {i}" for i in range(count)]
    draw_confusion(Scores.from_matrix(matrix), classes, tmp_path / "confusion.png", "a run")
    picture = cv2.imread(str(tmp_path / "confusion.png"))
    assert picture.shape[0] > 300 and picture.shape[0] / count > 20  # pixels for each name
    blue = (picture[..., 0] > 80) & (picture[..., 0] > picture[..., 2].astype(int) + 60)
    assert 0.003 < blue.mean() < 0.3
    assert [path.name for path in tmp_path.iterdir()] == ["confusion.png"]


def test_names_in_any_script_and_with_dollars_are_drawn(tmp_path):
    """Matplotlib warns of letters that a font lacks, and takes dollars for formulas."""
    classes = ["дорога", "街道", "$x_1$ and $", "طريق"]
    draw_confusion(
        Scores.from_matrix(np.eye(4, dtype=int)), classes, tmp_path / "confusion.png", "写 $"
    )
    draw_curves([], tmp_path / "curves.png", "写 $")
    assert len(list(tmp_path.iterdir())) == 2


class FakeRun:
    """What wandb.init gives, as far as it is used."""

    def __init__(self, options):
        self.options, self.logged, self.ended = options, [], None

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, values):
        self.logged.append(values)

    def finish(self, exit_code):
        self.ended = exit_code


@pytest.fixture
def fake_wandb(monkeypatch):
    """Stands in for the package; lists the runs that were begun."""
    runs = []

    def init(**options):
        runs.append(FakeRun(options))
        return runs[-1]

    module = types.SimpleNamespace(
        init=init, Image=lambda path: ("picture", path), __spec__=object()
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_weights_and_biases_takes_the_same_numbers(tmp_path, fake_wandb):
    config = make_config(workdir=str(tmp_path), wandb="streets")
    check_wandb(config.wandb)
    for first in (1, 2):
        with RunLog(
            tmp_path,
            CLASSES,
            log_every=1,
            total_steps=7,
            start=first - 1,
            wandb=WandbLog.of(config),
        ) as log:
            log.step(reading(first), epoch=1)
            log.scores(SCORES, first, epoch=1)
    begun, resumed = fake_wandb
    assert begun.options["project"] == "streets" and begun.options["name"] == tmp_path.name
    assert begun.options["config"]["model"] == "ccnet"
    assert begun.options["id"] == resumed.options["id"]
    numbers, scores, picture = begun.logged
    assert numbers == {"step": 1, "train/loss": 1.0, "train/grad_norm": 2.0, "train/lr": 0.1}
    assert scores["val/iou/road"] == 0.8
    assert picture == {
        "step": 1, "val/confusion": ("picture", str(tmp_path / "confusion.png"))
    }  # fmt: skip
    assert begun.ended == resumed.ended == 0


def test_weights_and_biases_hears_of_a_failure(tmp_path, fake_wandb):
    config = make_config(workdir=str(tmp_path), wandb="streets")
    with pytest.raises(KeyError):
        with RunLog(tmp_path, CLASSES, log_every=1, total_steps=7, wandb=WandbLog.of(config)):
            raise KeyError
    assert fake_wandb[0].ended == 1


def test_weights_and_biases_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_wandb(None)
    with pytest.raises(ConfigError, match="--wandb streets needs .* not installed: pip install w"):
        check_wandb("streets")


def test_curves_show_every_column(tmp_path):
    """Four panels, and below them a map with a row for each class."""
    steps = range(1, 9)
    rows = [{"step": str(step), "loss": str(5 / step), "grad_norm": "1"} for step in steps]
    rows = [row | {"lr": "0.1", "loss/dice": "0.5"} for row in rows]
    scores = {"miou": "0.4", "soft_iou": "0.6", "iou/sky": "1", "iou/road": "0", "iou/$car$": ""}
    drawn = {}
    for name, shown in {"steps": rows, "all": [*rows, {"step": "8", "loss": "", **scores}]}.items():
        draw_curves(shown, tmp_path / "curves.png", "a run")
        drawn[name] = cv2.imread(str(tmp_path / "curves.png"))
    for part in np.array_split(drawn["steps"], 4, axis=1):
        assert 0.01 < (part.min(axis=-1) < 200).mean() < 0.3
    below = drawn["all"][len(drawn["steps"]) :]
    dark, pale, grey = ((255 * np.array(color)[::-1]).round() for color in _MAP)
    row = 0.17 * 110 * 0.8 * below.shape[1]  # of three classes
    for color in (dark, pale, grey):
        assert (np.abs(below - color).max(-1) < 2).sum() > row, color
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


_MAP = (colormaps["Blues"](1.0)[:3], colormaps["Blues"](0.0)[:3], (0.85, 0.85, 0.85))


def test_curves_without_any_row(tmp_path):
    draw_curves([], tmp_path / "curves.png", "nothing yet")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_rows_without_a_step_are_dropped(tmp_path):
    run(tmp_path, 1, 4)
    path = tmp_path / "metrics.csv"
    whole = path.read_text()
    path.write_text(whole + "restarted here,1\n,,\n")
    assert [row["step"] for row in read_rows(path)] == ["2", "3", "4"]
    MetricsFile(path, CLASSES, step=5)
    assert path.read_text() == whole
