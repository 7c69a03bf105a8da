"""What the training minimises."""

import dataclasses
import math
from typing import ClassVar, Literal

from flaxseg.errors import ConfigError, did_you_mean
from flaxseg.training.settings.limits import Limit, at_least

PIXEL_LOSSES = ("cross_entropy", "focal", "ohem", "ohem_mmseg")
"""Means over pixels, which class weights apply to."""

SMOOTHED = ("cross_entropy", "ohem", "ohem_mmseg")
"""The losses that know label smoothing."""

REGION_LOSSES = ("dice", "lovasz", "iou")
"""Losses of areas, in which every class counts alike already."""

AUTO = "auto"
"""Lets us choose the class weights."""

WEIGHTINGS = (AUTO, "enet", "median_frequency")
"""Class weights by name."""


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """What the training minimises."""

    loss: tuple[str, ...] = ("cross_entropy",)
    """Losses of the main head, each as NAME or NAME=WEIGHT, such as cross_entropy=1 dice=3. Of
    pixels: cross_entropy, focal, ohem (BiSeNetV2's hard pixels), ohem_mmseg (mmsegmentation's). Of
    areas: dice, lovasz, iou (the Pet tutorial's)."""

    aux_loss: tuple[str, ...] = ()
    """Losses of the auxiliary heads, likewise. Empty: as the main head."""

    aux_weight: tuple[float, ...] = ()
    """Weight of the auxiliary heads, one number for all or one for each; 0 switches them off.
    Empty: the network's own."""

    class_weights: tuple[str, ...] = ()
    """Weights of the classes in the losses of pixels: auto, enet or median_frequency, from the
    pixel counts of the training labels (auto is enet); a number for each class; or CLASS=NUMBER
    for those that do not weigh 1."""

    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes, 0 to below 1; 0.1 is common. For
    cross_entropy and ohem."""

    loss_average: Literal["valid", "all"] = "valid"
    """What the losses of pixels are divided by: the labelled pixels, or all, which is the default
    of mmsegmentation."""

    ohem_threshold: float | None = 0.7
    """Probability of the right class above which a pixel is easy, 0 to 1. None: only the hardest
    pixels count, however easy."""

    ohem_min_kept: int = 100_000
    """Pixels per image that ohem_mmseg keeps at least; ohem keeps a sixteenth."""

    focal_gamma: float = 2.0
    """How much less the focal loss looks at easy pixels; 0 is cross entropy."""

    loss_per_image: bool = False
    """Average dice and lovasz over the images, rather than taking the batch as one image."""

    loss_align_corners: bool = False
    """Enlarge scores that are smaller than the labels with the corners aligned."""

    LIMITS: ClassVar[dict[str, Limit]] = {
        "loss": (lambda texts: len(texts) > 0, "at least one loss, such as cross_entropy"),
        "aux_weight": (
            lambda weights: all(0 <= weight < math.inf for weight in weights),
            "numbers of at least 0",
        ),
        "label_smoothing": (lambda value: 0 <= value < 1, "from 0 to below 1"),
        "ohem_threshold": (lambda value: 0 < value <= 1, "above 0 and at most 1, or None"),
        "ohem_min_kept": at_least(1),
        "focal_gamma": at_least(0),
    }
    FREE: ClassVar[frozenset[str]] = frozenset()


def check_loss(settings: LossSettings) -> None:
    """Makes sure that the settings of the loss can be read and fit each other.

    Raises:
        ConfigError: naming the flag and what fits.
    """
    terms = parse_terms("--loss", settings.loss) | parse_terms("--aux-loss", settings.aux_loss)
    _check_class_weights(settings.class_weights)
    if settings.class_weights and not set(terms) & set(PIXEL_LOSSES):
        raise ConfigError(
            f"--class-weights change nothing in --loss {' '.join(settings.loss)}: leave them out, "
            f"or add one of {', '.join(PIXEL_LOSSES)}"
        )
    if settings.label_smoothing and not set(terms) & set(SMOOTHED):
        raise ConfigError(
            f"--label-smoothing changes nothing in --loss {' '.join(settings.loss)}: leave it out, "
            f"or add one of {', '.join(SMOOTHED)}"
        )


def parse_terms(flag: str, texts: tuple[str, ...]) -> dict[str, float]:
    """Reads NAME and NAME=WEIGHT texts into weights by name.

    Raises:
        ConfigError: an unknown or repeated name, or a weight that is not above 0.
    """
    known = (*PIXEL_LOSSES, *REGION_LOSSES)
    terms: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        if name not in known:
            raise ConfigError(
                f"{flag} {text}: no loss is called {name!r}{did_you_mean(name, known)}"
            )
        if name in terms:
            raise ConfigError(f"{flag} names {name} twice: give it one weight, as {name}=2")
        weight = number_of(number) if equals else 1.0
        if not weight > 0:
            raise ConfigError(f"{flag} {text}: the weight must be a number above 0")
        terms[name] = weight
    return terms


def number_of(text: str) -> float:
    """The finite number that a text spells, or nan."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _check_class_weights(texts: tuple[str, ...]) -> None:
    for text in texts:
        if text in WEIGHTINGS:
            if len(texts) > 1:
                raise ConfigError(f"--class-weights {' '.join(texts)}: {text} must stand alone")
        elif not number_of(text.rpartition("=")[2]) >= 0:
            close = did_you_mean(text, WEIGHTINGS)
            raise ConfigError(
                f"--class-weights {text}: it must be a number of at least 0, CLASS=NUMBER, or a "
                f"rule{close}"
            )
    if 0 < sum("=" in text for text in texts) < len(texts):
        raise ConfigError(
            f"--class-weights {' '.join(texts)}: give numbers alone, or CLASS=NUMBER throughout"
        )
    if texts and all(number_of(text) == 0 for text in texts):
        raise ConfigError("--class-weights are all 0: at least one class must count")
