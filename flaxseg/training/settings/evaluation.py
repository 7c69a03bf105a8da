"""How the network is looked at while it trains, and scored."""

import dataclasses
from typing import ClassVar

from flaxseg.errors import ConfigError
from flaxseg.training.settings.limits import SIZE, Limit, at_least


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """How the network is looked at while it trains, and scored."""

    eval_every: int = 1
    """Epochs between two evaluations; the last epoch is always evaluated."""

    eval_size: tuple[int, int] | None = None
    """Height and width to which validation pictures and their label maps are stretched, in pixels.
    None: their own."""

    eval_base_size: tuple[int, int] | None = None
    """Longer and shorter side within which validation pictures are fitted, such as mmsegmentation's
    2048 512, in pixels. Label maps keep their size, and the logits are enlarged to it."""

    eval_multiple: int = 1
    """Validation pictures are then stretched up to sides that are multiples of it, in pixels. The
    network is compiled once for each size, so it also spares time where sizes vary."""

    eval_window: tuple[int, int] | None = None
    """Height and width of the windows through which the network looks at validation pictures, in
    pixels; logits are averaged where they overlap. None: at whole pictures."""

    eval_stride: tuple[int, int] | None = None
    """Rows and columns from one window to the next, in pixels. None: two thirds of the window."""

    eval_canvas: bool = False
    """Look at validation pictures in the corners of four sizes of image. Scores are the same but
    for rounding; two programs for each of the four replace those for every size of picture, and the
    network computes more. Networks that take one size, or look through windows, do as before."""

    eval_batch_size: int | None = None
    """Images per evaluation step. None: as many as per optimiser step."""

    metrics: tuple[str, ...] = ()
    """Scores beside mIoU, pixel and mean accuracy: accuracy_of_all (of pixels, those labelled 255
    count as wrong), micro_iou, micro_iou:CLASS (leaves a class out), soft_iou (of
    probabilities)."""

    train_accuracy: bool = False
    """Log the share of the training pixels that a step predicts right, before its update; pixels
    labelled 255 count as wrong."""

    LIMITS: ClassVar[dict[str, Limit]] = {
        "eval_every": at_least(1),
        "eval_size": SIZE,
        "eval_base_size": SIZE,
        "eval_multiple": at_least(1),
        "eval_window": SIZE,
        "eval_stride": SIZE,
        "eval_batch_size": at_least(1),
    }
    SCORED: ClassVar[frozenset[str]] = frozenset(
        {"eval_size", "eval_base_size", "eval_multiple", "eval_window", "eval_stride"}
    )
    FREE: ClassVar[frozenset[str]] = SCORED | {
        "eval_every",
        "eval_canvas",
        "eval_batch_size",
        "metrics",
        "train_accuracy",
    }


def check_evaluation(settings: EvaluationSettings) -> None:
    """Makes sure that the settings fit each other.

    Raises:
        ConfigError: naming the flags that do not.
    """
    fitted = settings.eval_base_size is not None or settings.eval_multiple != 1
    if settings.eval_size is not None and fitted:
        raise ConfigError(
            "--eval-size stretches pictures to one size, --eval-base-size and --eval-multiple keep "
            "their shape: give one or the other"
        )
    if settings.eval_window is None:
        if settings.eval_stride is not None:
            raise ConfigError("--eval-stride is of windows: give --eval-window, too")
        return
    for side, step in zip(settings.eval_window, settings.eval_stride or (1, 1), strict=True):
        if step > side:
            raise ConfigError(
                f"--eval-stride {step} leaves pixels out between windows of --eval-window {side}: "
                "give at most that"
            )
