"""Where else a run reports its numbers."""

import dataclasses
from typing import ClassVar

from flaxseg.training.settings.limits import Limit


@dataclasses.dataclass(frozen=True)
class LoggingSettings:
    """Where else a run reports its numbers."""

    wandb: str | None = None
    """Project of Weights & Biases that takes the numbers, too; needs its package. Without a network
    set WANDB_MODE=offline."""

    LIMITS: ClassVar[dict[str, Limit]] = {"wandb": (lambda name: bool(name), "a project's name")}
    FREE: ClassVar[frozenset[str]] = frozenset({"wandb"})
