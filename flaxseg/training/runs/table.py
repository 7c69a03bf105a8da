"""What `flaxseg runs` shows: a row for each run, with the settings in which they differ."""

import csv
import dataclasses
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flaxseg.inference.metrics import percent
from flaxseg.printed import print_line, table_title
from flaxseg.training.config import TrainConfig, flag, show
from flaxseg.training.runs.folder import Run, find_runs

_OF_THE_FOLDER = ("workdir",)

_NUMBERS = 75  # letters that name, state and numbers of a run take


def show_runs(root: Path, console: Console, *, form: str = "table") -> None:
    """Prints the runs in a folder and below it, the one with the best mIoU first.

    Args:
        root: the folder.
        console: where the table goes, and lines about what is no run; those are errors' where the
            form is for programs.
        form: "table", "json" or "csv", which go to standard output.

    Raises:
        ConfigError: there is no such folder.
    """
    runs, lines = find_runs(root)
    runs.sort(key=lambda run: -1.0 if run.best_miou is None else run.best_miou, reverse=True)
    names = differing([run.config for run in runs])
    if form == "table":
        console.print(_table(root, runs, names, console.width))
    elif form == "json":
        rows = [_row(root, run) | {"settings": _settings(run, names)} for run in runs]
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        flat = [
            _row(root, run) | {n: show(v) for n, v in _settings(run, names).items()} for run in runs
        ]
        writer = csv.DictWriter(sys.stdout, [*_COLUMNS, *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
    for line in lines:
        print_line(console, line) if form == "table" else print(line, file=sys.stderr)


def differing(configs: Sequence[TrainConfig]) -> list[str]:
    """The settings that are not the same in all, in the order of the settings."""
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    return [
        name
        for name in names
        if name not in _OF_THE_FOLDER and len({getattr(each, name) for each in configs}) > 1
    ]


_COLUMNS = ("run", "state", "step", "best_miou", "best_step", "seconds")


def _row(root: Path, run: Run) -> dict[str, Any]:
    numbers = {name: getattr(run, name) for name in _COLUMNS[1:]}
    return {"run": _name(root, run), **numbers}


def _settings(run: Run, names: Sequence[str]) -> dict[str, Any]:
    values = run.config.to_json()
    return {name: values[name] for name in names}


def _name(root: Path, run: Run) -> str:
    return str(run.folder.relative_to(root)) if run.folder != root else str(root)


def _table(root: Path, runs: Sequence[Run], names: Sequence[str], width: int) -> Table:
    """A column for each setting, or one for all of them where these would be too narrow."""
    values = [[show(getattr(run.config, name)) for name in names] for run in runs]
    headings = [flag(name) for name in names]
    columns = zip(headings, *values, strict=True)
    if sum(max(map(len, column)) + 3 for column in columns) > width - _NUMBERS:
        pairs = [zip(headings, row, strict=True) for row in values]
        values = [["  ".join(map(" ".join, each))] for each in pairs]
        headings = ["settings that differ"]
    table = Table(title=table_title(f"{len(runs)} run{'s' * (len(runs) != 1)} in {root}"))
    table.add_column("run", overflow="fold", min_width=8)
    table.add_column("state", no_wrap=True)
    for heading in ("best mIoU %", "at step", "steps", "time"):
        table.add_column(heading, justify="right", no_wrap=heading == "time")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for run, settings in zip(runs, values, strict=True):
        miou, at = ("-", "-") if run.best_miou is None else (percent(run.best_miou), run.best_step)
        table.add_row(
            Text(_name(root, run)),
            run.state,
            miou,
            str(at),
            str(run.step),
            "-" if run.seconds is None else str(datetime.timedelta(seconds=round(run.seconds))),
            *map(Text, settings),
        )
    return table
