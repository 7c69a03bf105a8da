"""How the learning rate changes over time."""

import dataclasses
from typing import ClassVar, Literal

from flaxseg.training.settings.limits import POSITIVE, Limit, at_least


@dataclasses.dataclass(frozen=True)
class ScheduleSettings:
    """How the learning rate changes over time."""

    schedule: Literal["constant", "step", "multistep", "poly", "linear", "cosine"] = "poly"
    """Learning rate over time: constant; times GAMMA every STEP_SIZE epochs, or at MILESTONES; or
    from LR to MIN_LR as (1 - progress) ** POWER, as a straight line, or as half a cosine."""

    min_lr: float = 0.0
    """Learning rate at which "poly", "linear" and "cosine" end, for every group of weights."""

    schedule_epochs: int | None = None
    """Epochs after which "poly", "linear" and "cosine" have reached MIN_LR, where they stay. None:
    the whole run."""

    schedule_by: Literal["step", "epoch"] = "step"
    """Whether the schedule moves on with each step, or only from epoch to epoch."""

    warmup: Literal["linear", "exponential"] = "linear"
    """How the learning rate rises at the beginning."""

    warmup_epochs: float = 0.0
    """Epochs over which it rises to the schedule's."""

    warmup_steps: int | None = None
    """The same in optimiser steps, instead of epochs."""

    warmup_ratio: float | None = None
    """Part of the schedule's learning rate that the first step has. None: one step's share, so
    that the last step of the warm-up has the whole."""

    after_warmup: bool = False
    """Begin the schedule after the warm-up, instead of together with it."""

    step_size: int = 50
    """Epochs between two drops of the "step" schedule."""

    milestones: tuple[int, ...] | None = None
    """Epochs after which the "multistep" schedule drops, such as 60 80."""

    gamma: float = 0.5
    """Factor of each drop of the "step" and "multistep" schedules."""

    power: float = 0.9
    """Exponent of the "poly" schedule."""

    LIMITS: ClassVar[dict[str, Limit]] = {
        "min_lr": at_least(0),
        "schedule_epochs": at_least(1),
        "warmup_epochs": at_least(0),
        "warmup_steps": at_least(0),
        "warmup_ratio": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
        "step_size": at_least(1),
        "milestones": (
            lambda epochs: epochs and min(epochs) >= 1 and list(epochs) == sorted(set(epochs)),
            "rising numbers of epochs from 1 on",
        ),
        "gamma": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
        "power": POSITIVE,
    }
    FREE: ClassVar[frozenset[str]] = frozenset()
