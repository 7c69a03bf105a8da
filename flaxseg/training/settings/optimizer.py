"""How the weights follow their gradients."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from flaxseg.training.settings.limits import POSITIVE, Limit, at_least

_BELOW_ONE: Limit = (lambda value: 0 <= value < 1, "from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """How the weights follow their gradients."""

    optimizer: Literal["sgd", "adam", "adamw", "lamb", "lars"] = "sgd"
    """SGD with momentum, Adam, AdamW, or for very large batches LAMB and LARS."""

    momentum: float = 0.9
    """Momentum of SGD and LARS, 0 to below 1; the others have none."""

    nesterov: bool = False
    """Nesterov's momentum, for SGD and LARS."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the mean gradient and of its square in Adam, AdamW and LAMB."""

    weight_decay: float = 1e-4
    """Decay per unit of weight. SGD, Adam and LARS add it to the gradient; AdamW and LAMB shrink
    the weights by it times the learning rate."""

    no_decay: tuple[Literal["layer_norm", "batch_norm", "bias", "position"], ...] | None = None
    """What does not decay, such as layer_norm bias; nothing behind the flag: all decays. Position
    stands for position tables and class tokens. None: nothing for SGD and Adam, all four for
    AdamW, LAMB and LARS."""

    head_lr: float = 1.0
    """Factor of the learning rate of the heads, main and auxiliary; 10 is common where only the
    encoder is pretrained."""

    layer_decay: float = 1.0
    """Factor of the learning rate from each block of a transformer's encoder to the one before it,
    above 0 to 1; 1 switches it off."""

    clip_grad: float | None = None
    """Largest Euclidean norm of the whole gradient; a longer one is scaled down. None: no limit."""

    accumulate: int = 1
    """Parts into which each batch is divided, computed one after another: memory for BATCH_SIZE /
    ACCUMULATE images. BatchNorm normalises over each part by itself."""

    LIMITS: ClassVar[dict[str, Limit]] = {
        "momentum": _BELOW_ONE,
        "betas": (lambda pair: all(0 <= beta < 1 for beta in pair), "from 0 to below 1"),
        "weight_decay": at_least(0),
        "head_lr": POSITIVE,
        "layer_decay": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
        "clip_grad": POSITIVE,
        "accumulate": at_least(1),
    }
    FREE: ClassVar[frozenset[str]] = frozenset()
    FIXED: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "optimizer": str,
        "momentum": bool,
        "weight_decay": bool,
        "clip_grad": bool,
    }
