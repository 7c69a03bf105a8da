"""The work directory: which run it belongs to, and whether that run is over."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from flaxseg.errors import ConfigError
from flaxseg.training.config import TrainConfig, differences

CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
METRICS_FILE = "metrics.csv"
CURVES_FILE = "curves.png"
CHECKPOINTS = "checkpoints"
MODEL = "model"
OVERLAYS = "overlays"
TENSORBOARD = "tensorboard"


@dataclasses.dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes:
        best_miou: best mean intersection over union on the validation images, 0 to 1; None before
            the first evaluation.
        best_step: number of updates at which it was measured.
        step: number of updates made.
        metrics: scores of the last evaluation (miou, pixel_accuracy, mean_accuracy).
        workdir: folder with everything the run wrote.
        finished: False if a signal or `max_steps` ended it early.
    """

    best_miou: float | None
    best_step: int | None
    step: int
    metrics: dict[str, float | None]
    workdir: Path
    finished: bool


def check_workdir(config: TrainConfig) -> None:
    """Makes sure that the work directory is new or belongs to the same run.

    Raises:
        ConfigError: listing the flags that differ from the run that the directory belongs to.
    """
    path = config.directory / CONFIG_FILE
    if config.directory.exists() and not config.directory.is_dir():
        raise ConfigError(f"--workdir {config.directory} is a file: choose another folder")
    if not path.exists():
        return
    try:
        changes = differences(TrainConfig.load(path), config)
    except ConfigError as error:
        raise ConfigError(f"{error}: choose another --workdir") from error
    if changes:
        raise ConfigError(
            f"--workdir {config.directory} belongs to another run ({'; '.join(changes)}): choose "
            "another --workdir, or the same settings to resume"
        )


def open_workdir(config: TrainConfig) -> Path:
    """Makes the work directory and writes its config."""
    try:
        config.directory.mkdir(parents=True, exist_ok=True)
        write_text(config.directory / CONFIG_FILE, json.dumps(config.to_json(), indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"--workdir {config.directory} cannot be written: {error}") from error
    return config.directory


def read_result(workdir: Path) -> FitResult | None:
    """The result of the finished run in a work directory, or None if it is not finished."""
    try:
        values: dict[str, Any] = json.loads((workdir / RESULT_FILE).read_text())
        return FitResult(**values, workdir=workdir, finished=True)
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, TypeError) as error:
        path = workdir / RESULT_FILE
        raise ConfigError(f"{path} is damaged ({error}): delete it to evaluate again") from error


def write_result(result: FitResult) -> None:
    """Marks the run as finished."""
    values = dataclasses.asdict(result)
    del values["workdir"], values["finished"]
    write_text(result.workdir / RESULT_FILE, json.dumps(values, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file that is either whole or not there, whenever the process is killed."""
    staging = path.with_name(f".{path.name}.tmp")
    staging.write_text(text)
    os.replace(staging, path)
