"""What runs leave for people to read: the page of one, the table of many."""

import csv
import dataclasses
import io
import json
import re
import shlex
import time

import numpy as np
import pytest
from rich.console import Console
from tensorboardX import SummaryWriter

from flaxseg import cli
from flaxseg.data.shapes import LABELS
from flaxseg.errors import ConfigError
from flaxseg.inference.metrics import Scores
from flaxseg.labels import LabelSet
from flaxseg.pictures import write_image
from flaxseg.training import FitResult, make_config
from flaxseg.training.logging import MetricsFile
from flaxseg.training.runs.events import seconds_at_work
from flaxseg.training.runs.page import write_page
from flaxseg.training.runs.table import show_runs
from flaxseg.training.runs.unusual import command_line, unusual
from flaxseg.training.workdir import open_workdir, write_result


def make_run(folder, *hits, finished=False, classes=("sky", "road"), **fields):
    """The folder of a run that was evaluated after each of its steps, with so many of 10 hits."""
    config = make_config("vitseg", workdir=str(folder), **fields)
    with open_workdir(config, pytest.fail):
        pass
    file = MetricsFile(folder / "metrics.csv", classes, 0)
    for step, count in enumerate(hits, 1):
        file.write(step, 1, {"loss": 1 / step, "grad_norm": 2.0, "lr": 0.1})
        scores = Scores.from_matrix(np.array([[count, 10 - count], [0, 4]]))
        names = [f"iou/{name}" for name in classes]
        iou = dict(zip(names, scores.iou.tolist(), strict=True))
        file.write(step, 1, {"miou": scores.miou, **iou})
    best = int(np.argmax(hits)) + 1 if hits else None
    result = FitResult(0.5, best, len(hits), {}, folder, finished)
    if finished:
        write_result(result)
    return config, result


@pytest.fixture
def runs(tmp_path):
    make_run(tmp_path / "low", 2, 1, lr=0.5, devices=1)
    make_run(tmp_path / "group" / "high", 9, finished=True, override=("depth=1",), devices=1)
    make_run(tmp_path / "new", devices=1)
    return tmp_path


def test_the_best_run_comes_first_with_the_settings_that_differ(runs, capsys):
    (runs / "notes").mkdir()
    (runs / "empty.txt").touch()
    for name, text in {"odd": '{"editor": "vim"}', "cut": '{"model": "vit'}.items():
        (runs / name).mkdir()
        (runs / name / "config.json").write_text(text)
    assert cli.main(["runs", str(runs), "--json"]) == 0
    out, err = capsys.readouterr()
    high, low, new = json.loads(out)
    assert (high["run"], high["state"], high["best_miou"]) == ("group/high", "finished", 0.5)
    assert high["settings"] == {"lr": 4e-4, "override": ["depth=1"]}
    expected = (2 / 10 + 4 / 12) / 2
    assert low["best_miou"] == pytest.approx(expected) and low["best_step"] == 1
    assert (low["state"], low["step"], low["settings"]["lr"]) == ("interrupted", 2, 0.5)
    assert (new["best_miou"], new["step"]) == (None, 0)
    assert [line.partition(": ")[0] for line in err.splitlines()] == [
        str(runs / name) for name in ("cut/config.json", "odd/config.json", "notes")
    ]
    show_runs(runs, Console(), form="csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["run"] for row in rows] == ["group/high", "low", "new"]
    assert [row["override"] for row in rows] == ["depth=1", "empty", "empty"]
    for width, heading in {120: "┃ --lr ", 80: "differ "}.items():
        show_runs(runs, Console(width=width))
        shown = capsys.readouterr().out
        assert heading in shown
        assert "50.00" in shown and "--lr" in shown and "--model" not in shown


def test_damaged_files_and_wrong_folders_are_told_in_one_line(runs, capsys):
    (runs / "group/high/result.json").write_text("{")
    (runs / "low/metrics.csv").write_bytes(b"\xff\xfe\n")
    assert cli.main(["runs", str(runs), "--csv"]) == 0
    out, err = capsys.readouterr()
    assert [row["run"] for row in csv.DictReader(io.StringIO(out))] == ["new"]
    damaged = [
        f"{runs / name} is damaged" for name in ("group/high/result.json", "low/metrics.csv")
    ]
    assert [line.partition(" (")[0].partition(":")[0] for line in err.splitlines()] == damaged
    with pytest.raises(ConfigError, match="none is no folder: name the one"):
        show_runs(runs / "none", Console())


def test_a_run_at_work_is_running_and_a_killed_one_is_not(tmp_path, capsys):
    config, _ = make_run(tmp_path / "run", 5)

    def state():
        show_runs(tmp_path, Console(), form="json")
        return json.loads(capsys.readouterr().out)[0]["state"]

    with open_workdir(config, pytest.fail):
        assert state() == "running"
    (tmp_path / "run" / ".lock").touch()
    assert state() == "interrupted"
    with open_workdir(config, pytest.fail):
        pass


def test_scores_of_other_pictures_are_not_compared(tmp_path, capsys):
    make_run(tmp_path / "run", 9, 2, 3)
    change = {"step": 2, "flag": "--eval-size", "old": None, "new": [8, 8]}
    (tmp_path / "run" / "history.jsonl").write_text(json.dumps(change) + "\n")
    show_runs(tmp_path, Console(), form="json")
    assert json.loads(capsys.readouterr().out)[0]["best_step"] == 3


def test_time_is_that_of_all_starts_without_their_pauses(tmp_path):
    assert seconds_at_work(tmp_path) is None
    begin = time.time()
    for seconds in (1000, 5000):
        writer = SummaryWriter(str(tmp_path), filename_suffix=f".{seconds}")
        writer.add_scalar("loss", 1.0, 1, walltime=begin + seconds)
        writer.close()
    passed = time.time() - begin
    assert 6000 - 2 * passed <= seconds_at_work(tmp_path) <= 6000
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:45])  # by a kill, amid the second event
    assert seconds_at_work(tmp_path) == 0


def parsed(line):
    program, command, *words = shlex.split(line)
    assert (program, command) == ("flaxseg", "train")
    return cli.parse_train_config(words)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": "bisenetv2", "recipe": "cityscapes", "data": "cityscapes", "epochs": 3},
        {
            "model": "ccnet",
            "override": ("backbone.width=16", "channels=8"),
            "eval_size": (32, 48),
            "check_labels": False,
            "train_accuracy": True,
            "ohem_threshold": None,
            "class_weights": ("sign symbol=6",),
        },
    ],
    ids=["recipe", "published", "many"],
)
def test_the_command_line_means_the_same_settings(fields, tmp_path):
    config = make_config(**fields, workdir=str(tmp_path / "a b"), max_steps=3)
    expected = dataclasses.replace(config, max_steps=None)
    assert parsed(command_line(config)) == expected
    names = [name for name, _, _ in unusual(config)]
    assert ("lr" in names, "model" in names, "max_steps" in names) == (False, False, True)


@pytest.mark.parametrize("finished", [True, False])
def test_the_page_tells_all_and_stands_alone(finished, tmp_path):
    labels = LabelSet("streets", ("<b>sky", "road"), LABELS.palette[:2])
    folder = tmp_path / "a run"
    hits = (9, 2) if finished else (9,)
    config, result = make_run(folder, *hits, finished=finished, classes=labels.classes, lr=0.25)
    (folder / "overlays").mkdir()
    drawn = ("curves", "confusion", "train_batch", "labels", "overlays/epoch_001")
    for name in drawn:
        write_image(folder / f"{name}.png", np.zeros((40, 30, 3), np.uint8))
    assert write_page(config, labels, result, total_steps=2) == folder / "report.html"
    text = (folder / "report.html").read_text()
    assert not re.search(r"https?://|url\(|@import|<script|<b>sky", text)
    assert text.count("<img") == 5 and text.count('src="data:image/') == 5
    assert "<th>--lr</th><td>0.25</td><td>0.0004</td>" in text and "&lt;b&gt;sky" in text
    assert f">{100 * 9 / 10:.2f}<" in text  # IoU of the best evaluation
    assert (f">{100 * 2 / 10:.2f}<" in text) == finished
    commands = [html_text(line) for line in re.findall(r"<pre>(.*?)</pre>", text)]
    train, predict, score = commands
    assert predict == f"flaxseg predict '{folder}' photo.jpg" and "flaxseg eval" in score
    again = parsed(train)
    assert (again.lr, again.directory, again.allow_changes) == (0.25, folder, finished)
    assert again.epochs == config.epochs * (2 if finished else 1)


def html_text(text):
    return text.replace("&#39;", "'").replace("&#34;", '"').replace("&amp;", "&")


def test_a_page_before_the_first_evaluation(tmp_path):
    config, result = make_run(tmp_path / "run")
    result = dataclasses.replace(result, best_miou=None, best_step=None)
    text = write_page(config, LABELS, result, total_steps=9).read_text()
    assert "Stopped after 0 of 9 steps" in text and "flaxseg predict" not in text
    assert text.count("<img") == 1  # curves without a point
