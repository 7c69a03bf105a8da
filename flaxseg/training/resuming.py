"""What a resumed run does otherwise than the checkpoint it goes on from."""

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flaxseg.errors import CheckpointError
from flaxseg.files import replace_text
from flaxseg.training.config import TrainConfig, changed_fields, flag, show

HISTORY_FILE = "history.jsonl"

_COUNTS = ("training_images", "validation_images")
"""What else may differ: numbers of images, which are no settings."""


class Change(NamedTuple):
    """One difference.

    Attributes:
        flag: the setting's, or words for what is none.
        old: value until then, as JSON.
        new: value from then on.
        scored: whether scores from before cannot be compared with later ones.
    """

    flag: str
    old: Any
    new: Any
    scored: bool = False

    def __str__(self) -> str:
        return f"{self.flag} was {show(self.old)}, now {show(self.new)}"


def find_changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[Change]:
    """What changes the weights or the scores of a run that goes on from a checkpoint.

    Args:
        there: the identity in the checkpoint, see `Setup.identity`. Checkpoints from before it had
            settings show numbers of images alone.
        here: that of the run.
    """
    changes = []
    if "settings" in there:
        old, new = (TrainConfig.from_json(values["settings"]) for values in (there, here))
        for name in changed_fields(old, new):
            if name not in TrainConfig.FREE or name in TrainConfig.SCORED:
                scored = name in TrainConfig.SCORED
                values = there["settings"].get(name), here["settings"][name]
                changes.append(Change(flag(name), *values, scored))
    for name in _COUNTS:
        if there.get(name) != here.get(name):
            values = there.get(name), here.get(name)
            changes.append(Change(name.replace("_", " "), *values, name == "validation_images"))
    return changes


@dataclasses.dataclass(frozen=True)
class Calendar:
    """Which steps of a run are special.

    Attributes:
        steps_per_epoch: whole batches in one pass over the training images.
        total_steps: length of the run.
        eval_every: epochs between two evaluations.
    """

    steps_per_epoch: int
    total_steps: int
    eval_every: int

    @classmethod
    def of(cls, config: TrainConfig, training_images: int) -> "Calendar":
        """That of a run with this number of images."""
        steps = max(training_images // config.images_per_step, 1)
        return cls(steps, config.steps or config.epochs * steps, config.eval_every)

    def epoch(self, step: int) -> int:
        """The epoch, from 1, that the update which makes `step` belongs to."""
        return (step - 1) // self.steps_per_epoch + 1

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch, or the run, is over after `step` updates."""
        return step == self.total_steps or (step > 0 and step % self.steps_per_epoch == 0)

    def wants_evaluation(self, step: int) -> bool:
        """Whether the network is to be evaluated after `step` updates."""
        due = self.epoch(step) % self.eval_every == 0
        return self.ends_epoch(step) and (due or step == self.total_steps)


def had_evaluation(there: Mapping[str, Any], step: int) -> bool:
    """Whether the run that wrote a checkpoint was about to evaluate it; False if it cannot be told.

    Args:
        there: the identity in the checkpoint.
        step: its number of updates.
    """
    if "settings" not in there:
        return False
    settings = TrainConfig.from_json(there["settings"])
    return Calendar.of(settings, there["training_images"]).wants_evaluation(step)


def check_identity(directory: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Makes sure that a run may go on from a checkpoint.

    Args:
        directory: of the checkpoints, for the message.
        there: the identity in the checkpoint.
        here: that of the run.

    Raises:
        CheckpointError: listing what differs.
    """
    old, new = _flatten(there), _flatten(here)
    differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    differing = [key for key in differing if key.partition(".")[0] not in _NO_WEIGHTS]
    fixed = [key for key in differing if _is_fixed(key, here)]
    allowed = here.get("settings", {}).get("allow_changes")
    if fixed or (differing and not allowed):
        changes = "; ".join(
            f"{key} was {show(old.get(key))}, now {show(new.get(key))}"
            for key in fixed or differing
        )
        raise CheckpointError(
            f"{directory} has checkpoints of another run ({changes}): {ways_out(bool(fixed))}"
        )


def ways_out(fixed: bool) -> str:
    """How to mend settings that are not those of the work directory, for the end of a message.

    Args:
        fixed: whether no checkpoint outlives the change.
    """
    if fixed:
        return "choose another --workdir, or the same settings to resume"
    return (
        "choose another --workdir, the same settings to resume, or --allow-changes to go on from "
        "the last checkpoint with these"
    )


_NO_WEIGHTS = ("settings", "validation_images")
_CHANGEABLE = ("training_images", "momentum", "weight_decay", "class_weights")


def _is_fixed(key: str, here: Mapping[str, Any]) -> bool:
    """Whether no checkpoint outlives a change of this part of the identity."""
    if key == "training_images" and here.get("average") == "Swa":
        return True  # a mean of snapshots counts them by the steps of an epoch
    settings = here.get("settings", {})
    return key not in _CHANGEABLE and (key not in settings or key in TrainConfig.FIXED)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict) and key not in _NO_WEIGHTS:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def write_history(workdir: Path, step: int, changes: Collection[Change]) -> None:
    """Adds what changes at a step to history.jsonl, a JSON object a line.

    Lines of this step and of later ones go: what was trained with them has been lost.
    """
    path = workdir / HISTORY_FILE
    kept = [line for line in _lines(path) if _step(line) < step]
    new = [
        json.dumps({"step": step, "flag": change.flag, "old": change.old, "new": change.new})
        for change in changes
    ]
    if kept or new:
        replace_text(path, "".join(line + "\n" for line in [*kept, *new]))
    else:
        path.unlink(missing_ok=True)


def _step(line: str) -> float:
    """The step of a line; a line that somebody else has written counts as of before."""
    try:
        return json.loads(line)["step"]
    except (ValueError, LookupError, TypeError):
        return -1


def _lines(path: Path) -> Iterator[str]:
    if path.exists():
        yield from path.read_text(encoding="utf-8").splitlines()
