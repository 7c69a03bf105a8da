"""Runs in folders: where they are, how far they came, and how well they did."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from filelock import Timeout

from flaxseg.errors import ConfigError
from flaxseg.locks import lock_on
from flaxseg.model_dir import CONFIG_FILE, is_model_directory
from flaxseg.training.config import TrainConfig, flag
from flaxseg.training.logging import read_rows
from flaxseg.training.resuming import HISTORY_FILE
from flaxseg.training.runs.events import seconds_at_work
from flaxseg.training.workdir import LOCK_FILE, METRICS_FILE, TENSORBOARD, read_result

State = Literal["finished", "running", "interrupted"]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run, as its folder tells it.

    Attributes:
        folder: work directory.
        config: settings.
        state: running, if a process holds the folder's lock.
        step: updates that are logged, or made if it is finished.
        best_miou: best mean intersection over union, 0 to 1; None before the first evaluation.
        best_step: number of updates at which it was measured.
        seconds: at work, pauses left out; None where no event tells.
    """

    folder: Path
    config: TrainConfig
    state: State
    step: int
    best_miou: float | None
    best_step: int | None
    seconds: float | None


def find_runs(root: Path) -> tuple[list[Run], list[str]]:
    """The runs in a folder and below it, and a line about each folder that is none.

    Told of are folders whose `config.json` is no run's or whose files are damaged, and those right
    below `root` in which there is no run.

    Raises:
        ConfigError: there is no such folder.
    """
    if not root.is_dir():
        raise ConfigError(f"{root} is no folder: name the one that the runs are in")
    runs, lines, seen = [], [], set()
    for folder in _candidates(root):
        seen.add(folder)
        try:
            runs.append(read_run(folder))
        except (ConfigError, OSError, ValueError) as error:
            lines.append(" ".join(str(error).split()))
    for child in sorted(root.iterdir()) if root not in seen else ():
        if _is_shown(child) and not any(child in (each, *each.parents) for each in seen):
            lines.append(f"{child}: no run in it")
    return runs, lines


def read_run(folder: Path) -> Run:
    """The run of a work directory.

    Raises:
        ConfigError: it is none, or a file is damaged; with its name.
        OSError: a file cannot be read.
    """
    if is_model_directory(folder):
        raise ConfigError(f"{folder}: a model directory, no run")
    config = TrainConfig.load(folder / CONFIG_FILE)
    result = read_result(folder)
    rows = _rows(folder / METRICS_FILE)
    state: State = "interrupted" if result is None else "finished"
    if _is_held(folder / LOCK_FILE):
        state = "running"
    seconds = seconds_at_work(folder / TENSORBOARD)
    if result is not None:
        best = result.best_miou, result.best_step
        return Run(folder, config, state, result.step, *best, seconds)
    step = max((int(row["step"]) for row in rows), default=0)
    since = _comparable_since(folder / HISTORY_FILE)
    # The earlier one of equal scores, as the run keeps it.
    scored = [(float(row["miou"]), -int(row["step"])) for row in rows if row.get("miou")]
    miou, at = max((each for each in scored if -each[1] >= since), default=(None, None))
    return Run(folder, config, state, step, miou, None if at is None else -at, seconds)


def _candidates(root: Path) -> Iterator[Path]:
    """Folders with a `config.json`, in order; none below another."""
    for place, folders, files in os.walk(root):
        if CONFIG_FILE in files:
            folders.clear()
            yield Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _is_shown(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        return read_rows(path) if path.exists() else []
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from error


def _comparable_since(path: Path) -> int:
    """The step from which on scores are of the same pictures, looked at in the same way."""
    scored = {flag(name) for name in TrainConfig.SCORED} | {"validation images"}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    changes = [json.loads(line) for line in lines]
    return max((change["step"] for change in changes if change["flag"] in scored), default=0)


def _is_held(path: Path) -> bool:
    """Whether a run is at work; one that was killed leaves the file, which nobody holds."""
    if not path.exists():
        return False
    lock = lock_on(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # it is another user's, or nothing can be locked there
        return False
    lock.release()
    return False
