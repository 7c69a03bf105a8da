"""Which pictures a step and an evaluation see."""

import dataclasses
import math
from typing import ClassVar, Literal

from flaxseg.training.settings.limits import PROBABILITY, SIZE, Limit, at_least


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Which pictures a step and an evaluation see."""

    limit: int | None = None
    """Use only the first LIMIT images of each split, for a quick try. None: all."""

    on_bad_sample: Literal["error", "skip"] = "error"
    """What becomes of damaged or unfitting files: an error before the first step, or left out and
    listed in skipped.txt."""

    batch_size: int = 8
    """Images per optimiser step, over all devices together."""

    image_size: tuple[int, int] = (64, 64)
    """Height and width of the training images, in pixels."""

    resize: Literal["crop", "stretch"] = "crop"
    """How a picture becomes IMAGE_SIZE: a random crop, or the whole picture stretched."""

    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest random magnification before the crop; 1 1 switches it off."""

    hflip: float = 0.5
    """Probability of a left-right flip, 0 to 1."""

    vflip: float = 0.0
    """Probability of an upside-down flip, 0 to 1."""

    jitter: float = 0.0
    """Strength of the random changes of brightness, contrast and saturation; 0 switches them off,
    0.4 is common."""

    eval_size: tuple[int, int] | None = None
    """Height and width to which validation pictures are stretched, in pixels. None: their own."""

    eval_batch_size: int | None = None
    """Images per evaluation step. None: as many as per optimiser step."""

    check_labels: bool = True
    """Read every label map before the first step."""

    LIMITS: ClassVar[dict[str, Limit]] = {
        "limit": at_least(1),
        "batch_size": at_least(1),
        "image_size": SIZE,
        "scale": (lambda value: 0 < value[0] <= value[1] < math.inf, "MIN MAX with 0 < MIN <= MAX"),
        "hflip": PROBABILITY,
        "vflip": PROBABILITY,
        "jitter": PROBABILITY,
        "eval_size": SIZE,
        "eval_batch_size": at_least(1),
    }
    FREE: ClassVar[frozenset[str]] = frozenset({"check_labels"})
