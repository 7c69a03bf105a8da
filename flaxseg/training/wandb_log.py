"""Weights & Biases, for those who ask for it."""

import importlib
import importlib.util
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaxseg.errors import ConfigError
from flaxseg.files import replace_text
from flaxseg.training.config import TrainConfig

RUN_ID_FILE = "wandb_id.txt"


def check_wandb(project: str | None) -> None:
    """Makes sure that the package is there if a project is named.

    Raises:
        ConfigError: telling how to install it.
    """
    if project is not None and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f"--wandb {project} needs a package that is not installed: pip install wandb"
        )


class WandbLog:
    """One run of a project; resuming the work directory goes on with the same one."""

    @classmethod
    def of(cls, config: TrainConfig) -> "WandbLog | None":
        """The log that a run asks for, if it does."""
        return cls(config.wandb, config.directory, config.to_json()) if config.wandb else None

    def __init__(self, project: str, workdir: Path, config: Mapping[str, Any]):
        """Begins the run, or goes on with it.

        Args:
            project: its name.
            workdir: of the training, where the package writes and the run's id is kept.
            config: settings to show, JSON values.
        """
        self._wandb = importlib.import_module("wandb")
        self._run = self._wandb.init(
            project=project,
            name=workdir.name,
            dir=str(workdir),
            id=_run_id(workdir / RUN_ID_FILE),
            resume="allow",
            config=dict(config),
        )
        # A resumed run repeats steps, which would not fit the package's own count.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes numbers by name, such as train/loss."""
        self._run.log({"step": step, **values})

    def picture(self, step: int, name: str, path: Path) -> None:
        """Takes a PNG."""
        self._run.log({"step": step, name: self._wandb.Image(str(path))})

    def close(self, failed: bool) -> None:
        """Ends the run and waits until it is sent."""
        self._run.finish(exit_code=int(failed))


def _run_id(path: Path) -> str:
    if not path.exists():
        replace_text(path, uuid.uuid4().hex[:12] + "\n")
    return path.read_text().strip()
