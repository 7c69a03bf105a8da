"""How the weights follow their gradients."""

import dataclasses
from typing import ClassVar, Literal

from flaxseg.training.settings.limits import POSITIVE, Limit, at_least


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """How the weights follow their gradients."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW with betas 0.9 and 0.999."""

    lr: float = 0.05
    """Peak learning rate."""

    momentum: float = 0.9
    """Momentum of SGD, 0 to below 1; AdamW has none."""

    weight_decay: float = 1e-4
    """Decay per unit of weight. SGD adds it to every gradient; AdamW shrinks matrices and kernels
    by it times the learning rate, and leaves norms, biases and position tables alone."""

    schedule: Literal["constant", "step", "poly"] = "poly"
    """Learning rate over time: constant, times GAMMA every STEP_SIZE epochs, or falling to 0 as
    (1 - progress) ** POWER."""

    warmup_epochs: float = 0.0
    """Epochs over which the learning rate rises linearly to the schedule's."""

    step_size: int = 50
    """Epochs between two drops of the "step" schedule."""

    gamma: float = 0.5
    """Factor of each drop of the "step" schedule."""

    power: float = 0.9
    """Exponent of the "poly" schedule."""

    LIMITS: ClassVar[dict[str, Limit]] = {
        "lr": POSITIVE,
        "momentum": (lambda value: 0 <= value < 1, "from 0 to below 1"),
        "weight_decay": at_least(0),
        "warmup_epochs": at_least(0),
        "step_size": at_least(1),
        "gamma": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
        "power": POSITIVE,
    }
    FREE: ClassVar[frozenset[str]] = frozenset()
