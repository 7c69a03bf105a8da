"""Which mean of the weights is evaluated and saved."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from flaxseg.training.settings.limits import POSITIVE, Limit, at_least


@dataclasses.dataclass(frozen=True)
class AveragingSettings:
    """Which mean of the weights is evaluated and saved."""

    ema: float | None = None
    """Decay of an exponential moving average of the weights, such as 0.9999: about 1 / (1 - EMA)
    steps count. It is evaluated and saved in place of the weights. None: no average."""

    swa_start: int | None = None
    """Epochs before stochastic weight averaging begins; from then on the plain mean of the weights
    after every SWA_EVERY epochs is evaluated and saved, with BatchNorm's statistics taken anew
    from a pass over the training images. None: none."""

    swa_every: int = 1
    """Epochs between two snapshots that enter that mean."""

    swa_lr: float | None = None
    """Constant learning rate after SWA_START. None: as the schedule has it."""

    LIMITS: ClassVar[dict[str, Limit]] = {
        "ema": (lambda value: 0 < value < 1, "above 0 and below 1"),
        "swa_start": at_least(1),
        "swa_every": at_least(1),
        "swa_lr": POSITIVE,
    }
    FREE: ClassVar[frozenset[str]] = frozenset()
    FIXED: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "ema": bool,
        "swa_start": lambda epochs: epochs,
        "swa_every": lambda epochs: epochs,
    }
