"""Scores beside mIoU, by the names that `--metrics` takes."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flaxseg.errors import ConfigError, did_you_mean
from flaxseg.inference.metrics import ratio
from flaxseg.labels import LabelSet

SOFT_IOU, BOUNDARY_IOU = "soft_iou", "boundary_iou"


@dataclasses.dataclass(frozen=True, eq=False)
class Totals:
    """What was counted in an evaluation.

    Attributes:
        matrix: (K, K) int64 pixel counts, rows the true class, columns the predicted one.
        pixels: all pixels, those labelled 255 among them.
        soft_iou: sum of the pictures' soft intersection over union.
        pictures: with any label, which have one.
        boundaries: (2, K) int64, see `flaxseg.inference.boundary.boundary_counts`; None where they
            were not counted.
    """

    matrix: np.ndarray
    pixels: int
    soft_iou: float = 0.0
    pictures: int = 0
    boundaries: np.ndarray | None = None


def accuracy_of_all(totals: Totals) -> float:
    """Share of all pixels predicted right; pixels labelled 255 count as wrong."""
    return _ratio(int(totals.matrix.trace()), totals.pixels)


def micro_iou(totals: Totals, left_out: int | None = None) -> float:
    """Intersections of all classes together over their unions.

    Args:
        totals: of an evaluation.
        left_out: class whose pixels do not count, nor its predictions elsewhere as a union of its
            own, as torchmetrics' `jaccard_index(average="micro", ignore_index=left_out)` has it.
    """
    matrix = totals.matrix.copy()
    if left_out is not None:
        matrix[left_out] = 0
    hits = matrix.diagonal()
    unions = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    if left_out is not None:
        unions[left_out] = 0
    return _ratio(int(hits.sum()), int(unions.sum()))


def mean_soft_iou(totals: Totals) -> float:
    """Mean over the pictures of the intersection over union of probabilities and labels.

    It is what the loss of that name minimises, see `flaxseg.ops.soft_iou`.
    """
    return _ratio(totals.soft_iou, totals.pictures)


def boundary_iou(totals: Totals) -> np.ndarray:
    """Of each class, (K,): the boundary IoU of Cheng et al. 2021, https://arxiv.org/abs/2103.16562.

    Raises:
        ConfigError: no boundaries were counted.
    """
    if totals.boundaries is None:
        raise ConfigError(f"{BOUNDARY_IOU} needs boundaries, which were not counted")
    return ratio(*totals.boundaries)


METRICS: dict[str, Callable[..., float | np.ndarray]] = {
    "accuracy_of_all": accuracy_of_all,
    "micro_iou": micro_iou,
    SOFT_IOU: mean_soft_iou,
    BOUNDARY_IOU: boundary_iou,
}
"""A metric is a number, or one for each class, whose mean is then the number."""


def parse_metrics(
    texts: Sequence[str], labels: LabelSet | None = None
) -> dict[str, Callable[[Totals], float | np.ndarray]]:
    """The scores that `--metrics` names.

    Args:
        texts: names of `METRICS`; "micro_iou:CLASS" leaves a class out.
        labels: the classes; None checks everything but those.

    Raises:
        ConfigError: an unknown name or class, or a name that is there twice.
    """
    found: dict[str, Callable[[Totals], float | np.ndarray]] = {}
    for text in texts:
        name, _, left_out = text.partition(":")
        if name not in METRICS:
            raise ConfigError(f"--metrics {name!r} is unknown{did_you_mean(name, METRICS)}")
        if left_out and name != "micro_iou":
            raise ConfigError(f"--metrics {text}: only micro_iou leaves a class out")
        if text in found:
            raise ConfigError(f"--metrics names {text} twice")
        arguments: dict[str, Any] = {}
        if left_out and labels is not None:
            arguments["left_out"] = _index(left_out, labels)
        found[text] = _bound(METRICS[name], arguments)
    return found


def _bound(
    metric: Callable[..., float | np.ndarray], arguments: dict[str, Any]
) -> Callable[[Totals], float | np.ndarray]:
    return lambda totals: metric(totals, **arguments)


def _index(name: str, labels: LabelSet) -> int:
    if name not in labels.classes:
        raise ConfigError(
            f"--metrics micro_iou:{name}: {labels.name} has no class {name!r}"
            f"{did_you_mean(name, labels.classes)}"
        )
    return labels.classes.index(name)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
