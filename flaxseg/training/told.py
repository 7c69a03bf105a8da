"""What a run tells of itself in the terminal: its settings as it begins, its result as it ends."""

import dataclasses

from rich.columns import Columns
from rich.console import Console
from rich.text import Text

from flaxseg import distributed
from flaxseg.inference.opening import MODEL_FOLDER
from flaxseg.ops import rounding
from flaxseg.printed import print_line
from flaxseg.training.augment import mirror_hint
from flaxseg.training.config import TrainConfig, flag, show
from flaxseg.training.ending import ending_words
from flaxseg.training.setup import Setup
from flaxseg.training.workdir import FitResult


def print_settings(setup: Setup, console: Console) -> None:
    """Prints what is about to be trained, and what was assumed about it."""
    values = dataclasses.asdict(setup.config)
    flags = [
        f"{flag(key)} {show(value)}" for key, value in values.items() if value not in (None, ())
    ]
    sizes = f"{len(setup.datasets.train)} training and {len(setup.datasets.val)} validation images"
    devices = _devices(setup)
    steps = f"{setup.total_steps} steps ({setup.datasets.steps_per_epoch} per epoch)"
    console.print(Columns(map(Text, flags), padding=(0, 3)))
    print_line(console, f"{sizes}, {devices}, {steps}")
    rounded = _rounding(setup.config, setup.mesh.devices.flat[0].platform)
    frozen = setup.frozen.told(setup.abstract_state().params)
    for line in [*frozen, *rounded, *setup.datasets.notes()]:
        print_line(console, line)
    mirrored = mirror_hint(setup.config, setup.datasets.train.labels)
    if mirrored:
        print_line(console, mirrored)
    # It writes a file, too.
    for line in setup.datasets.list_skipped(setup.config) if distributed.is_first() else ():
        print_line(console, line)


def summary(result: FitResult) -> str:
    """How far a run came, how good it is, and where the model lies."""
    if result.best_miou is None:
        return f"step {result.step}, not evaluated yet"
    best = f"best mIoU {result.best_miou:.4f} at step {result.best_step} of {result.step}"
    if result.ended_by:
        best += f", where {ending_words(result.ended_by)} ended it"
    return f"{best}; model in {result.workdir / MODEL_FOLDER}"


def farewell(result: FitResult, stopped_by: str | None) -> str:
    """The last line of a run.

    Args:
        result: how it ended.
        stopped_by: name of the signal, if one came.
    """
    if result.finished:
        return f"done: {summary(result)}"
    reason = stopped_by or "--max-steps"
    return (
        f"stopped by {reason} after step {result.step}, saved in {result.workdir}: the same "
        "command continues"
    )


def _rounding(config: TrainConfig, platform: str) -> list[str]:
    """What the training loses for its speed."""
    rounded = rounding(platform, config.dtype, config.matmul_precision)
    if rounded is None:
        return []
    return [
        f"the training step rounds the operands of float32 products to {rounded}, evaluations do "
        "not; --matmul-precision highest multiplies float32 itself"
    ]


def _devices(setup: Setup) -> str:
    text = f"{setup.mesh.size} x {setup.mesh.devices.flat[0].device_kind}"
    if setup.config.fsdp > 1:
        text += " (" + " x ".join(f"{axis} {size}" for axis, size in setup.mesh.shape.items()) + ")"
    count = distributed.count()
    return text if count == 1 else f"{text} in {count} processes"
