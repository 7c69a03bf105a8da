"""How the run goes on, and what it leaves behind."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from flaxseg.ops import Precision
from flaxseg.training.settings.limits import POSITIVE, Limit, at_least


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """How the run goes on, and what it leaves behind."""

    allow_changes: bool = False
    """Go on from the last checkpoint with other settings than the run had until then, such as more
    epochs or another learning rate; listed in history.jsonl."""

    config: str | None = None
    """YAML file of settings, one a line, such as "lr: 0.01". Flags beat it, it beats the recipe."""

    steps: int | None = None
    """Length of the run, in optimiser steps, instead of epochs."""

    log_every: int = 10
    """Optimiser steps between two rows of metrics.csv."""

    checkpoint_every: float = 5.0
    """Minutes between two checkpoints, besides the one after each epoch; 0 is after each step."""

    seed: int = 0
    """Seed of weights, order of the images, augmentation and dropout."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the computation; parameters, loss and statistics stay float32."""

    matmul_precision: Precision = "default"
    """Of float32 products in the training step. default: what the device does fastest, TF32 on
    NVIDIA GPUs, one pass of bfloat16 on TPUs; highest: float32 itself. Evaluations are exact."""

    patience: int | None = None
    """Evaluations without a better mIoU after which the run ends. None: the whole length."""

    hours: float | None = None
    """Hours after which the run is evaluated a last time and ends, all its starts counted together;
    the schedule does not change. More of them go on. None: the whole length."""

    override: tuple[str, ...] = ()
    """Fields of the model's own config as KEY=VALUE, dotted where nested, such as
    backbone.width=16 channels=64."""

    compile_cache: bool = True
    """Keep compiled programs on disk, so that the same program starts at once the next time."""

    cache_dir: str | None = None
    """Folder of the compiled programs. None: $FLAXSEG_CACHE/xla, or ~/.cache/flaxseg/xla."""

    max_steps: int | None = None
    """Stop after this optimiser step as if interrupted; the schedule does not change."""

    log_samples: bool = False
    """Write samples.csv: the positions, in the training split, of the images of every step."""

    LIMITS: ClassVar[dict[str, Limit]] = {
        "steps": at_least(1),
        "log_every": at_least(1),
        "checkpoint_every": at_least(0),
        "seed": (lambda value: 0 <= value < 2**32, "from 0 to 4294967295"),
        "patience": at_least(1),
        "hours": POSITIVE,
        "max_steps": at_least(1),
    }
    FREE: ClassVar[frozenset[str]] = frozenset(
        {
            "allow_changes",
            "config",
            "patience",
            "hours",
            "log_every",
            "checkpoint_every",
            "compile_cache",
            "cache_dir",
            "max_steps",
            "log_samples",
        }
    )
    FIXED: ClassVar[dict[str, Callable[[Any], Any]]] = {"override": sorted}
