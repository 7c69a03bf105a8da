"""Which pictures a step sees."""

import dataclasses
import math
from typing import ClassVar, Literal

from flaxseg.pictures.open import MAX_PIXELS
from flaxseg.preprocess import Channels, Preprocess
from flaxseg.training.settings.limits import PROBABILITY, SIZE, Limit, at_least

IMAGENET = Preprocess()


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Which pictures a step sees."""

    limit: int | None = None
    """Use only the first LIMIT images of each split, for a quick try. None: all."""

    on_bad_sample: Literal["error", "skip"] = "error"
    """What becomes of damaged or unfitting files: an error before the first step, or left out and
    listed in skipped.txt."""

    missing_mask: str = "error"
    """What becomes of photos without label map: an "error", left out ("skip"), or pictures of the
    class of this name alone."""

    max_pixels: int = MAX_PIXELS
    """Most pixels that a photo may have; larger ones are refused before they fill the memory. 0 has
    no limit."""

    resize: Literal["crop", "stretch"] = "crop"
    """How a picture becomes IMAGE_SIZE: a random crop, or the whole picture stretched."""

    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest random magnification before the crop; 1 1 switches it off."""

    scale_law: Literal["log-uniform", "uniform"] = "log-uniform"
    """How the magnification is distributed between its bounds; mmsegmentation's is uniform."""

    base_size: tuple[int, int] | None = None
    """Longer and shorter side within which a picture is fitted before SCALE applies, such as
    mmsegmentation's 2048 512, in pixels. None: its own size."""

    cat_max_ratio: float = 1.0
    """Draw a crop anew, up to ten times, where one class covers this share of the labelled pixels;
    0.75 is common, 1 takes any crop."""

    rare_crop: float = 0.0
    """Probability of a crop around a pixel of a rare class: one of the picture's classes, drawn
    with the inverse of its frequency in the training set."""

    rotation: float = 0.0
    """Largest random rotation to either side, in degrees; 10 is common, 0 switches it off."""

    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    """How resized pictures get their pixels; label maps always take the nearest."""

    hflip: float = 0.5
    """Probability of a left-right flip, 0 to 1."""

    flip_pairs: tuple[str, ...] = ()
    """Classes that a left-right flip swaps, as LEFT=RIGHT, such as left_arm=right_arm
    left_leg=right_leg."""

    vflip: float = 0.0
    """Probability of an upside-down flip, 0 to 1."""

    jitter: float = 0.0
    """Strength of the random changes of brightness, contrast and saturation; 0 switches them off,
    0.4 is common."""

    color: Literal["jitter", "contrast", "photometric"] = "jitter"
    """How colours change: JITTER of all three, JITTER of contrast alone, or mmsegmentation's
    photometric distortion, whose strengths are fixed."""

    mean: tuple[float, float, float] = IMAGENET.mean
    """Mean of red, green and blue that is taken off every pixel, 0 to 1. Published encoders expect
    their own, mostly ImageNet's."""

    std: tuple[float, float, float] = IMAGENET.std
    """Standard deviation by which they are then divided, likewise."""

    channels: Channels = "rgb"
    """Order in which the network takes the channels; MEAN and STD are those of red, green and blue
    either way."""

    check_labels: bool = True
    """Read every label map before the first step."""

    loader_threads: int | None = None
    """Batches that are read and augmented at a time; the pictures are the same for any number.
    None: one for each core, at most 16."""

    keep_decoded: float = 0.0
    """Memory for training pictures that were read, in GiB, so that later epochs need not decode
    them; 0 keeps none."""

    LIMITS: ClassVar[dict[str, Limit]] = {
        "limit": at_least(1),
        "max_pixels": at_least(0),
        "scale": (lambda value: 0 < value[0] <= value[1] < math.inf, "MIN MAX with 0 < MIN <= MAX"),
        "base_size": SIZE,
        "cat_max_ratio": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
        "rare_crop": PROBABILITY,
        "rotation": (lambda value: 0 <= value <= 180, "from 0 to 180 degrees"),
        "hflip": PROBABILITY,
        "vflip": PROBABILITY,
        "jitter": PROBABILITY,
        "mean": (lambda value: 0 <= min(value) <= max(value) <= 1, "three numbers from 0 to 1"),
        "std": (lambda value: 0 < min(value) <= max(value) < math.inf, "three numbers above 0"),
        "loader_threads": at_least(1),
        "keep_decoded": at_least(0),
    }
    FREE: ClassVar[frozenset[str]] = frozenset(
        {"on_bad_sample", "check_labels", "loader_threads", "keep_decoded", "max_pixels"}
    )
    SCORED: ClassVar[frozenset[str]] = frozenset({"interpolation"})
