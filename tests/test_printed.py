"""Names of classes, files and folders are shown as they are, whatever they hold."""

import csv
import io
import os

import numpy as np
import pytest
from rich.console import Console

from flaxseg import data
from flaxseg.data.report import print_report
from flaxseg.inference.metrics import Scores, scores_table
from flaxseg.labels import LabelSet
from flaxseg.printed import print_line
from flaxseg.report.confusion import draw_confusion
from flaxseg.training import fit
from flaxseg.training.curves import draw_curves
from flaxseg.training.logging import MetricsFile, read_rows

NAMES = (
    "[bold]x", "car [1]", "[/]", "[/bold]", "a:b", ":smile:", "[red]", r"back\[slash", "[link=x]y",
    "a, b", 'the "big" one', "$a$", "5 $", r"$\nonsense$", "a_b^c", "# 3", "{x}", "%s",
)  # fmt: skip


@pytest.fixture
def console():
    """Records what a terminal with colours would show."""
    with open(os.devnull, "w") as nowhere:
        yield Console(file=nowhere, record=True, width=160, force_terminal=True)


@pytest.fixture
def labels():
    palette = tuple((index, 0, 0) for index in range(len(NAMES)))
    return LabelSet("my [data] :smile:", NAMES, palette)


@pytest.fixture
def scores():
    return Scores.from_matrix(np.eye(len(NAMES), dtype=np.int64), more={"micro_iou:[/]": 0.5})


def cells(text):
    return {cell.strip() for cell in text.replace("┃", "│").split("│")}


def test_scores(console, labels, scores):
    console.print(scores_table(scores, labels))
    text = console.export_text()
    assert {*NAMES, "micro_iou:[/]"} <= cells(text)
    assert "my [data] :smile:" in text


def test_report(console, labels):
    source = data.Shapes("train", image_size=(16, 16), length=2)
    source.labels = labels
    statistics = {"train": data.count_labels(source)}
    print_report(console, {"train": source}, statistics, [])
    text = console.export_text()
    assert set(NAMES) <= cells(text)
    assert "my [data] :smile:: 18 classes" in text


def test_lines_are_neither_parsed_nor_coloured():
    stream = io.StringIO()
    console = Console(file=stream, width=20, force_terminal=True, color_system="truecolor")
    for name in NAMES:
        print_line(console, f"resuming 'runs/{name}' at step 3, /tmp/{name}")
    shown = stream.getvalue().splitlines()
    assert shown == [f"resuming 'runs/{name}' at step 3, /tmp/{name}" for name in NAMES]


def test_a_finished_run_in_a_folder_with_brackets(tiny_like_run, tmp_path, console):
    config = tiny_like_run(tmp_path / "runs [/] [red]1:smile:")
    fit(config, console)
    fit(config, console)
    text = console.export_text()
    assert f"{config.directory} is finished" in text
    assert text.count("[/] [red]1:smile:") >= 3


@pytest.fixture
def tiny_like_run():
    """Makes the config of a run that ends after one step of a tiny network."""
    from flaxseg.training import make_config

    def make(directory):
        return make_config(
            "vitseg",
            override=("depth=1", "width=16", "num_heads=2", "mlp_dim=16", "patch_size=8"),
            limit=4,
            batch_size=4,
            steps=1,
            image_size=(16, 16),
            eval_size=(16, 16),
            devices=1,
            workdir=str(directory),
        )

    return make


def test_pictures_parse_no_formulas(labels, scores, tmp_path):
    draw_confusion(scores, labels.classes, tmp_path / "confusion.png", r"runs/$\nonsense$")
    draw_curves([], tmp_path / "curves.png", r"runs/$\nonsense$")
    assert (tmp_path / "confusion.png").stat().st_size > 0


def test_columns_of_metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    values = {f"iou/{name}": index / 100 for index, name in enumerate(NAMES)}
    MetricsFile(path, NAMES, 0).write(1, 1, values)
    MetricsFile(path, NAMES, 2).write(2, 1, values)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and read_rows(path) == rows
    for row in rows:
        assert {name: float(row[name]) for name in values} == values
