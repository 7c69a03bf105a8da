"""What `flaxseg eval --report` and `flaxseg compare` do."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flaxseg.errors import DataError
from flaxseg.files import replace_text, sha256_of
from flaxseg.inference.evaluating import evaluate_dir
from flaxseg.inference.metrics import Scores, percent
from flaxseg.inference.opening import resolve_model_dir
from flaxseg.inference.paired import RESAMPLES, Comparison, compare
from flaxseg.inference.per_image import PerImage
from flaxseg.inference.record import Record, check_views
from flaxseg.labels import LabelSet
from flaxseg.model_dir import WEIGHTS_FILE
from flaxseg.printed import print_line, table_title
from flaxseg.report.page import comparison_page, lost_and_gained, points, report_page

Pathlike = str | os.PathLike[str]

SCORES_FILE, PER_IMAGE_FILE, PAGE_FILE = "scores.json", "per_image.npz", "report.html"
WEIGHTS = "weights_sha256"
"""Entry of `scores.json`: the digest of the file with the weights that have these scores."""

COMPARISON_FILE, COMPARISON_PAGE = "compare.json", "compare.html"


def report_evaluation(
    path: Pathlike, report: Pathlike, *, console: Console | None = None, **options: Any
) -> Scores:
    """Scores a model as `flaxseg.inference.evaluate_dir` does, and writes what was found.

    Args:
        path: work directory of a training run, or model directory.
        report: folder for `scores.json`, all numbers with settings, versions and the SHA-256 of the
            weights; `per_image.npz`, the names of the N pictures and their confusion matrices,
            (N, K, K) int64; and `report.html`, a page without a reference to anything outside it.
        console: as for `evaluate_dir`, likewise `options`.

    Returns:
        The scores.

    Raises:
        FlaxsegError: as `evaluate_dir`.
        DataError: the folder cannot be written to.
    """
    folder = _folder(report)
    record = Record()
    weights = sha256_of(resolve_model_dir(path) / WEIGHTS_FILE)
    scores = evaluate_dir(path, record=record, console=console, **options)
    page = report_page(record)
    record.per_image.save(folder / PER_IMAGE_FILE)
    more = {"labels": record.labels.to_json(), WEIGHTS: weights}
    _write_json(folder / SCORES_FILE, record.to_json() | more)
    replace_text(folder / PAGE_FILE, page)
    if console is not None:
        print_line(console, f"{folder / PAGE_FILE} shows it")
    return scores


def is_report(path: Pathlike) -> bool:
    """Whether `flaxseg eval --report` wrote this folder."""
    return (Path(path) / PER_IMAGE_FILE).is_file()


class Side(NamedTuple):
    """One of two models that are compared.

    Attributes:
        about: what `Record.to_json` gave.
        labels: the classes.
        per_image: what was found in each picture.
        record: with which pictures can be shown; None of a folder that `--report` wrote.
    """

    about: Mapping[str, Any]
    labels: LabelSet
    per_image: PerImage
    record: Record | None


def compare_models(
    a: Pathlike,
    b: Pathlike,
    *,
    report: Pathlike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    other_settings: bool = False,
    console: Console | None = None,
    **options: Any,
) -> Comparison:
    """Compares two models on the same pictures, see `flaxseg.inference.paired`.

    Args:
        a: work directory, model directory, or folder that `flaxseg eval --report` wrote; the last
            one needs neither the model nor the data.
        b: likewise.
        report: folder for `compare.json` and `compare.html`; None writes nothing.
        resamples: how often the pictures are drawn anew.
        seed: of the draws.
        other_settings: the models may look at the pictures in different ways, such as through
            windows and not. Label maps must be the same in any case.
        console: where the table goes; None prints nothing.
        options: of `flaxseg.inference.evaluate_dir`, for both models; folders are as they are.

    Returns:
        What B gains.

    Raises:
        FlaxsegError: as `evaluate_dir`.
        ConfigError: the settings differ, or `resamples` is less than 1.
        DataError: other pictures, classes or label maps, fewer than two pictures, or a folder that
            cannot be read or written to.
    """
    folder = None if report is None else _folder(report)
    sides = [_side(a, None, console, options)]
    settings = None if other_settings else sides[0].about["settings"]
    sides.append(_side(b, settings, console, options))
    _check_classes(*(side.labels for side in sides))
    comparison = compare(*(side.per_image for side in sides), resamples=resamples, seed=seed)
    names, labels = sides[0].per_image.names, sides[0].labels
    if console is not None:
        _print(comparison, names, labels, console)
    if folder is not None:
        about = [side.about for side in sides]
        records = [side.record for side in sides if side.record is not None]
        shown = records if len(records) == len(sides) else []
        page = comparison_page(comparison, names, labels, about, shown)
        _write_json(folder / COMPARISON_FILE, _to_json(comparison, names, labels, about, seed))
        replace_text(folder / COMPARISON_PAGE, page)
        if console is not None:
            print_line(console, f"{folder / COMPARISON_PAGE} shows it")
    return comparison


def _side(
    path: Pathlike, like: Mapping[str, Any] | None, console: Console | None, options: dict[str, Any]
) -> Side:
    folder = Path(path)
    if is_report(folder):
        about, labels = _read_about(folder / SCORES_FILE)
        if like is not None:
            check_views(like, about["settings"])
        return Side(about, labels, PerImage.load(folder / PER_IMAGE_FILE), None)
    record = Record(like)
    if console is not None:
        print_line(console, f"{path}:")
    evaluate_dir(path, record=record, console=console, **{"metrics": (), **options})
    return Side(record.to_json(), record.labels, record.per_image, record)


def _read_about(path: Path) -> tuple[dict[str, Any], LabelSet]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return about, LabelSet.from_json(about["labels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}): evaluate again with --report") from error


def _check_classes(a: LabelSet, b: LabelSet) -> None:
    if different := a.differences(b):
        n = different[0]
        names = [repr(each.classes[n]) if n < each.num_classes else "none" for each in (a, b)]
        raise DataError(
            f"class {n} is {names[0]} for A and {names[1]} for B: compare models of the same "
            "classes"
        )


def _print(
    comparison: Comparison, names: tuple[str, ...], labels: LabelSet, console: Console
) -> None:
    table = Table(title=table_title(f"B − A, {len(names)} pictures of {labels.name}"))
    table.add_column("class")
    for heading in ("A IoU %", "B IoU %", "B − A", "95 % interval", "B better in %"):
        table.add_column(heading, justify="right")
    for k, name in enumerate((*labels.classes, "mean")):
        if k == labels.num_classes:
            table.add_section()
        low, high = points(comparison.low[k]), points(comparison.high[k])
        table.add_row(
            Text(name),
            *(percent(iou) for iou in comparison.iou[:, k]),
            points(comparison.difference[k]),
            "-" if np.isnan(comparison.low[k]) else f"{low} to {high}",
            percent(comparison.better[k]),
        )
    console.print(table)
    for heading, places in zip(("lost", "gained"), lost_and_gained(comparison), strict=True):
        shown = ", ".join(f"{names[i]} {points(comparison.pictures[i])}" for i in places)
        print_line(console, f"{heading} most: {shown or 'none'}")


def _to_json(
    comparison: Comparison,
    names: tuple[str, ...],
    labels: LabelSet,
    about: list[Mapping[str, Any]],
    seed: int,
) -> dict[str, Any]:
    columns = {
        "a_iou": comparison.iou[0],
        "b_iou": comparison.iou[1],
        "difference": comparison.difference,
        "low": comparison.low,
        "high": comparison.high,
        "b_better": comparison.better,
    }
    rows = zip(*(_plain(values) for values in columns.values()), strict=True)
    scores = [dict(zip(columns, row, strict=True)) for row in rows]
    return {
        "a": about[0],
        "b": about[1],
        "resamples": comparison.resamples,
        "seed": seed,
        "miou": scores[-1],
        "classes": dict(zip(labels.classes, scores[:-1], strict=True)),
        "pictures": [[n, v] for n, v in zip(names, _plain(comparison.pictures), strict=True)],
    }


def _plain(values: np.ndarray) -> list[float | None]:
    """Numbers for JSON, which has no nan."""
    return [None if np.isnan(value) else float(value) for value in values]


def _write_json(path: Path, values: dict[str, Any]) -> None:
    replace_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _folder(path: Pathlike) -> Path:
    """The folder of a report, made before hours are spent on what it cannot take."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"--report {folder} is a file: choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"--report {folder} cannot be written to: {error.strerror}") from error
    return folder
