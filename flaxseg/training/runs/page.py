"""report.html of a work directory: what was trained, how it went, and how it goes on."""

import dataclasses
import json
import math
import shlex
from pathlib import Path
from typing import Any

from flaxseg.files import replace_text
from flaxseg.inference.metrics import percent
from flaxseg.labels import LabelSet
from flaxseg.report.page import FORMULAS, bar_width, named_colors, render, small_enough
from flaxseg.report.pictures import file_uri, sheet_uri
from flaxseg.training.config import TrainConfig, flag, show
from flaxseg.training.curves import draw_curves
from flaxseg.training.ending import ending_words
from flaxseg.training.logging import read_rows
from flaxseg.training.resuming import HISTORY_FILE
from flaxseg.training.runs.unusual import command_line, unusual
from flaxseg.training.workdir import (
    CONFUSION_FILE,
    CURVES_FILE,
    LABELS_FILE,
    METRICS_FILE,
    OVERLAYS,
    PAGE_FILE,
    TRAIN_BATCH_FILE,
    FitResult,
)

_SIDES = (1600, 1200, 800, 500)

Row = dict[str, str]


def write_page(config: TrainConfig, labels: LabelSet, result: FitResult, total_steps: int) -> Path:
    """Writes the page of a run from what lies in its work directory.

    It holds nothing that depends on the speed of the machine: a run that was interrupted and
    resumed leaves the same page as one that was not.

    Args:
        config: settings.
        labels: the classes.
        result: how the run ended, or how far it came.
        total_steps: length of the run.

    Returns:
        The page.

    Raises:
        DataError: the page would be too large.
        OSError: a picture cannot be read, or the page not written.
    """
    folder = config.directory
    rows = read_rows(folder / METRICS_FILE)
    if not result.finished:  # The last evaluation of a finished run has drawn them.
        draw_curves(rows, folder / CURVES_FILE, str(folder))
    evaluated = [row for row in rows if row.get("miou")]
    last = evaluated[-1] if evaluated else {}
    best = next((row for row in reversed(evaluated) if _step(row) == result.best_step), {})
    differing = unusual(config)
    recipe = "the recipe" if config.recipe == "default" else f"recipe {config.recipe}"
    known = {"curves": _file(folder / CURVES_FILE), "confusion": _file(folder / CONFUSION_FILE)}
    formulas = ["IoU", "accuracy", "mean", "pixel accuracy"]
    formulas += [name.partition(":")[0] for name in config.metrics]

    def page(side: int) -> str:
        return render(
            "run.html.j2",
            title=_title(config, labels, result),
            tiles=_tiles(result, total_steps, rows, last),
            state=_state(result, total_steps),
            commands=_commands(config, result, bool(evaluated)),
            curves=known["curves"],
            columns=_columns(labels, best, last),
            classes=named_colors(labels),
            pictures=_pictures(folder, last, known["confusion"] if evaluated else None, side),
            recipe=recipe,
            settings=[(flag(name), show(here), show(there)) for name, here, there in differing],
            changes=_changes(folder),
            formulas={name: FORMULAS[name] for name in dict.fromkeys(formulas)},
        )

    replace_text(folder / PAGE_FILE, small_enough(page, _SIDES))
    return folder / PAGE_FILE


def _title(config: TrainConfig, labels: LabelSet, result: FitResult) -> str:
    name = f"{config.model} on {labels.name}"
    return name if result.best_miou is None else f"{name}: mIoU {percent(result.best_miou)} %"


def _tiles(result: FitResult, total: int, rows: list[Row], last: Row) -> list[tuple[str, str]]:
    tiles = [("steps", f"{result.step:,} of {total:,}")]
    losses = [row["loss"] for row in rows if row.get("loss")]
    tiles += [("last loss", f"{float(losses[-1]):.4g}")] if losses else []
    if result.best_miou is not None:
        tiles.append((f"best mIoU %, step {result.best_step}", percent(result.best_miou)))
    names = [name for name in last if name not in ("step", "epoch") and "/" not in name]
    shown = {"miou": "mIoU"}
    words = {name: shown.get(name, name.replace("_", " ")) for name in names if last[name]}
    return tiles + [(f"last {word} %", percent(float(last[n]))) for n, word in words.items()]


def _state(result: FitResult, total: int) -> str:
    if result.finished and result.ended_by:
        words = ending_words(result.ended_by)
        return f"Finished: {words} ended it after {result.step:,} of {total:,} steps."
    if result.finished:
        return f"Finished after {result.step:,} steps."
    return f"Stopped after {result.step:,} of {total:,} steps, and saved."


def _commands(config: TrainConfig, result: FitResult, has_model: bool) -> list[tuple[str, str]]:
    folder = shlex.quote(str(config.directory))
    if result.finished and result.ended_by:
        doubled = {name: 2 * value for name, value in result.ended_by.items()}
        line = command_line(dataclasses.replace(config, **doubled))
        lines = [(f"Goes on, until {ending_words(doubled)} or the last step ends it:", line)]
    elif result.finished:
        unit = "epochs" if config.steps is None else "steps"
        longer = dataclasses.replace(config, **{unit: 2 * getattr(config, unit)})
        line = command_line(longer, "--allow-changes")
        lines = [(f"Trains on, to twice the {unit}, with the schedule of the longer run:", line)]
    else:
        lines = [("Goes on with the training, to the same end:", command_line(config))]
    if has_model:
        lines += [
            ("Segments photos with the best model:", f"flaxseg predict {folder} photo.jpg"),
            (
                "Scores it, with a page of the worst and best pictures:",
                f"flaxseg eval {folder} --split val --report {folder}/evaluation",
            ),
        ]
    return lines


def _columns(labels: LabelSet, best: Row, last: Row) -> list[dict[str, Any]]:
    """IoU of each class in the best evaluation, and in the last one if that is another."""
    shown = {"best": best, "last": last} if best is not last else {"best and last": best}
    return [
        {
            "heading": f"IoU %, {which} (step {row['step']})",
            "cells": [_cell(row.get(f"iou/{name}")) for name in labels.classes],
            "mean": _cell(row.get("miou"))[0],
        }
        for which, row in shown.items()
        if row
    ]


def _cell(text: str | None) -> tuple[str, str]:
    value = float(text) if text else math.nan
    return percent(value), bar_width(value)


def _pictures(
    folder: Path, last: Row, confusion: str | None, side: int
) -> list[tuple[str, str, str]]:
    """Heading, words and data URI of each picture that is there."""
    overlays = folder / OVERLAYS / f"epoch_{int(last.get('epoch', 0)):03d}.png"
    found = [
        ("Where the pixels of each class went", "In the last evaluation.", confusion),
        (
            "The last evaluation",
            "The same validation pictures each time; the network is looked at as it was then.",
            _sheet(overlays, side),
        ),
        (
            "What the steps learn from",
            "Pictures and label maps of the first batch, as the step gets them.",
            _sheet(folder / TRAIN_BATCH_FILE, side),
        ),
        ("The training labels", "", _file(folder / LABELS_FILE)),
    ]
    return [(heading, words, uri) for heading, words, uri in found if uri]


def _file(path: Path) -> str | None:
    return file_uri(path) if path.exists() else None


def _sheet(path: Path, side: int) -> str | None:
    return sheet_uri(path, side) if path.exists() else None


def _changes(folder: Path) -> list[str]:
    path = folder / HISTORY_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    changes = [json.loads(line) for line in lines]
    return [
        f"step {change['step']}: {change['flag']} was {show(change['old'])}, then "
        f"{show(change['new'])}"
        for change in changes
    ]


def _step(row: Row) -> int:
    return int(row["step"])
