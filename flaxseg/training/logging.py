"""What a run leaves to read: metrics.csv and .jsonl, TensorBoard events, curves, confusion."""

import csv
import functools
import io
import logging
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flaxseg.files import replace_text
from flaxseg.inference.metrics import Scores
from flaxseg.report.confusion import draw_confusion
from flaxseg.training.config import TrainConfig
from flaxseg.training.curves import draw_curves
from flaxseg.training.json_lines import JsonLines
from flaxseg.training.monitor import Reading
from flaxseg.training.wandb_log import WandbLog
from flaxseg.training.workdir import (
    CONFUSION_FILE,
    CURVES_FILE,
    JSON_FILE,
    METRICS_FILE,
    TENSORBOARD,
)

TRAIN_COLUMNS = ("loss", "grad_norm", "lr")
TRAIN_ACCURACY = "train_accuracy"
TERM = "loss/"
"""In front of the names of a loss's terms."""
SCORE_COLUMNS = ("miou", "pixel_accuracy", "mean_accuracy")


class MetricsFile:
    """metrics.csv: a row per logged training step, and one per evaluation.

    It holds nothing that depends on the speed of the machine, so a run that was interrupted and
    resumed leaves the same bytes as one that was not.
    """

    def __init__(self, path: Path, classes: Sequence[str], step: int, more: Sequence[str] = ()):
        """Opens the file and drops the rows that the run is about to write again.

        Args:
            path: file to append to; it is made if it does not exist.
            classes: class names, one column of IoU each.
            step: number of updates at which the run starts.
            more: columns beside the usual ones.
        """
        self.path = path
        self.columns = ["step", "epoch", *TRAIN_COLUMNS, *SCORE_COLUMNS, *more]
        self.columns += [f"iou/{name}" for name in classes]
        kept = [row for row in read_rows(path) if _is_before(row, step)] if path.exists() else []
        replace_text(path, self._text(kept, header=True))

    def write(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """Appends a row; columns without a value stay empty, as does nan."""
        row = {key: repr(value) for key, value in values.items() if not math.isnan(value)}
        text = self._text([{"step": step, "epoch": epoch, **row}], header=False)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(text)

    def _text(self, rows: Sequence[dict[str, Any]], header: bool) -> str:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns, extrasaction="ignore", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return buffer.getvalue()


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without a last line that was cut off by a kill.

    Lines that were added by hand and do not start with a step are left out, too.
    """
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(io.StringIO(whole))
    return [row for row in rows if (row.get("step") or "").isdecimal()]


def more_columns(config: TrainConfig, terms: Sequence[str] = ()) -> list[str]:
    """The columns of metrics.csv that a run has asked for, by `terms` of its loss as well."""
    accuracy = [TRAIN_ACCURACY] * config.train_accuracy
    return [TERM + name for name in terms] + accuracy + list(config.metrics)


def _is_before(row: dict[str, str], step: int) -> bool:
    """A run that starts at `step` evaluates it again, but does not train it again."""
    return int(row["step"]) < step or (int(row["step"]) == step and bool(row.get("loss")))


class RunLog:
    """Writes all of it, and keeps the losses between two rows."""

    def __init__(
        self,
        workdir: Path,
        classes: Sequence[str],
        *,
        log_every: int,
        total_steps: int,
        start: int = 0,
        losses: Sequence[float] = (),
        accuracies: Sequence[float] = (),
        terms: Mapping[str, Sequence[float]] = MappingProxyType({}),
        more: Sequence[str] = (),
        wandb: WandbLog | None = None,
    ):
        """Opens the files of a work directory.

        Args:
            workdir: where to write.
            classes: class names.
            log_every: optimiser steps between two rows.
            total_steps: length of the run; its last step always gets a row.
            start: number of updates at which the run starts or resumes.
            losses: of the steps since the last row, when it resumes.
            accuracies: of the same steps, if they are logged.
            terms: of the loss in the same steps, by name, if they are logged.
            more: columns beside the usual ones.
            wandb: takes the numbers, too.
        """
        self._classes = list(classes)
        self._workdir = workdir
        self._log_every, self._total = log_every, total_steps
        self.losses, self.accuracies = list(losses), list(accuracies)
        self.terms = {name: list(values) for name, values in terms.items()}
        self._file = MetricsFile(workdir / METRICS_FILE, classes, start, more)
        self._lines = JsonLines(workdir / JSON_FILE, read_rows(self._file.path))
        self._wandb = wandb
        self._start = start

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind, exception, trace) -> None:
        if "_opening" in vars(self):
            self._opening.result().close()
        if self._wandb is not None:
            self._wandb.close(failed=exception is not None)

    def step(self, reading: Reading, epoch: int) -> float | None:
        """Takes a training step; returns the row's mean loss if it completed one."""
        _ = self._opening
        self.losses.append(reading.loss)
        if reading.accuracy is not None:
            self.accuracies.append(reading.accuracy)
        for name, value in reading.terms.items():
            self.terms.setdefault(name, []).append(value)
        if reading.step % self._log_every and reading.step != self._total:
            return None
        loss = _emptied(self.losses)
        values = {"loss": loss, "grad_norm": reading.grad_norm, "lr": reading.lr}
        values |= {TERM + name: _emptied(of) for name, of in self.terms.items() if of}
        if self.accuracies:
            values[TRAIN_ACCURACY] = _emptied(self.accuracies)
        self._write(reading.step, epoch, values)
        self._add("train", values, reading.step)
        return loss

    def speed(self, images_per_second: float, step: int) -> None:
        """Takes the speed of training, not for the files: it differs from run to run."""
        self._add("train", {"images_per_second": images_per_second}, step)

    def scores(self, scores: Scores, step: int, epoch: int) -> None:
        """Takes an evaluation and draws the curves and the confusion matrix anew."""
        means = {name: float(getattr(scores, name)) for name in SCORE_COLUMNS} | dict(scores.more)
        by_class = {
            f"iou/{name}": float(iou) for name, iou in zip(self._classes, scores.iou, strict=True)
        }
        self._write(step, epoch, means | by_class)
        self._add("val", means | by_class, step)
        self._opening.result().flush()
        path = self._workdir / CURVES_FILE
        draw_curves(read_rows(self._file.path), path, str(self._workdir))
        path = self._workdir / CONFUSION_FILE
        title = f"{self._workdir}, step {step}: mIoU {100 * scores.miou:.2f} %"
        draw_confusion(scores, self._classes, path, title)
        if self._wandb is not None:
            self._wandb.picture(step, "val/confusion", path)

    @functools.cached_property
    def _opening(self) -> Future[Any]:
        """TensorBoard's writer, opened while the second step runs.

        It imports PyTorch where there is one, for which a start should not wait, nor the first row.
        """
        worker = ThreadPoolExecutor(1, "events")
        writer = worker.submit(_event_writer, self._workdir / TENSORBOARD, self._start)
        worker.shutdown(wait=False)
        return writer

    def _write(self, step: int, epoch: int, values: dict[str, float]) -> None:
        self._file.write(step, epoch, values)
        self._lines.write(step, epoch, values)

    def _add(self, group: str, values: dict[str, float], step: int) -> None:
        known = {f"{group}/{k}": v for k, v in values.items() if not math.isnan(v)}
        for name, value in known.items():
            self._opening.result().add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.write(step, known)


def _emptied(values: list[float]) -> float:
    """The mean of a list, which is empty afterwards."""
    mean = math.fsum(values) / len(values)
    values.clear()
    return mean


def _event_writer(directory: Path, start: int) -> Any:
    # Without its warnings about features not used here.
    logging.getLogger("tensorboardX").setLevel(logging.ERROR)
    from tensorboardX import SummaryWriter

    # purge_step hides what an interrupted run wrote beyond the step it resumes from.
    return SummaryWriter(str(directory), purge_step=start + 1 if start else None)
