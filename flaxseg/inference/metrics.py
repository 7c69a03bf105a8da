"""Confusion matrices, counted exactly on the device, and the scores read off them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table
from rich.text import Text

from flaxseg.errors import ConfigError
from flaxseg.labels import LabelSet
from flaxseg.printed import table_title

_MAX_PIXELS = 2**31 - 1


def confusion_matrix(
    prediction: jax.Array | np.ndarray,
    label: jax.Array | np.ndarray,
    num_classes: int,
    weight: jax.Array | np.ndarray | None = None,
) -> jax.Array:
    """Counts how often each class was predicted as each class.

    The counts are whole numbers, exact for the batch. Add several batches up in 64 bits on the
    host, as `Evaluator` does: a long run overflows 32 of them.

    Args:
        prediction: predicted class ids, (B, H, W), 0 to num_classes - 1.
        label: true class ids, (B, H, W). Pixels whose true or predicted id is outside 0 to
            num_classes - 1, such as `flaxseg.labels.IGNORE`, are not counted.
        num_classes: number of classes K.
        weight: (B,); samples whose weight is 0 are not counted. All count when it is None.

    Returns:
        (K, K) int32, rows the true class, columns the predicted one.

    Raises:
        ConfigError: the shapes differ, or the batch has more pixels than int32 can count.
    """
    _check_shapes(prediction.shape, label.shape, None if weight is None else weight.shape)
    prediction, label = jnp.asarray(prediction, jnp.int32), jnp.asarray(label, jnp.int32)
    counted = _is_class(label, num_classes) & _is_class(prediction, num_classes)
    if weight is not None:
        counted &= weight[:, None, None] > 0
    prediction, label = jnp.where(counted, prediction, 0), jnp.where(counted, label, num_classes)
    # The fastest form depends on the machine. A scatter of 512x512 pixels into 150x150 counts is
    # 300 times faster on a CPU than the product of one-hot vectors, but a TPU scatters one pixel
    # after the other and multiplies matrices for free.
    counts = jax.lax.platform_dependent(
        prediction,
        label,
        tpu=lambda p, t: _count_by_product(p, t, num_classes),
        default=lambda p, t: _count_by_scatter(p, t, num_classes),
    )
    return counts.sum(axis=0)


def _is_class(ids: jax.Array, num_classes: int) -> jax.Array:
    return (ids >= 0) & (ids < num_classes)


def _check_shapes(
    prediction: tuple[int, ...], label: tuple[int, ...], weight: tuple[int, ...] | None
) -> None:
    if prediction != label or len(label) != 3:
        raise ConfigError(f"prediction {prediction} and label {label} must both be (B, H, W)")
    if weight is not None and weight != label[:1]:
        raise ConfigError(f"weight {weight} must be (B,) = {label[:1]}, one per sample")
    if math.prod(label) > _MAX_PIXELS:
        raise ConfigError(f"a batch of {label} pixels is too large to count: at most {_MAX_PIXELS}")


def _count_by_scatter(prediction: jax.Array, label: jax.Array, num_classes: int) -> jax.Array:
    """(B, H, W) ids, with label K where not counted -> (B, K, K) counts."""

    def count(prediction, label):
        # Uncounted pixels point past the end, where the scatter drops them.
        cells = (label * num_classes + prediction).reshape(-1)
        counts = jnp.zeros((num_classes * num_classes,), jnp.int32).at[cells].add(1, mode="drop")
        return counts.reshape(num_classes, num_classes)

    # One matrix per sample, so that a batch split over devices is counted where it lies.
    return jax.vmap(count)(prediction, label)


def _count_by_product(prediction: jax.Array, label: jax.Array, num_classes: int) -> jax.Array:
    """The same counts as the product of one-hot bytes, summed in int32."""
    batch = label.shape[0]
    rows = jax.nn.one_hot(label.reshape(batch, -1), num_classes, dtype=jnp.int8)
    columns = jax.nn.one_hot(prediction.reshape(batch, -1), num_classes, dtype=jnp.int8)
    return jnp.einsum("bnk,bnl->bkl", rows, columns, preferred_element_type=jnp.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """What a confusion matrix says about a segmenter.

    Classes that occur neither in a label nor in a prediction have no intersection over union (nan)
    and do not enter the mean, as in mmsegmentation.

    Attributes:
        matrix: (K, K) int64 pixel counts, rows the true class, columns the predicted one.
        iou: (K,) intersection over union; nan for a class that occurs nowhere.
        dice: (K,) twice the intersection over the sum of both areas, also called F1; nan as `iou`.
        accuracy: (K,) share of the class's pixels found; nan for a class without true pixels.
        frequency: (K,) share of all counted pixels that are of this class; nan without pixels.
        miou: mean of `iou` over the classes that have one; nan without any.
        mean_dice: mean of `dice` over the classes that have one; nan without any.
        mean_accuracy: mean of `accuracy` over the classes that have one; nan without any.
        pixel_accuracy: share of all counted pixels found; nan without pixels.
        more: further scores by name, see `flaxseg.inference.more_metrics`.
        by_class: those of them that each class has, (K,), by name; `more` holds their means.
    """

    matrix: np.ndarray
    iou: np.ndarray
    dice: np.ndarray
    accuracy: np.ndarray
    frequency: np.ndarray
    miou: float
    mean_dice: float
    mean_accuracy: float
    pixel_accuracy: float
    more: Mapping[str, float] = dataclasses.field(default_factory=dict)
    by_class: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_matrix(
        cls, matrix: np.ndarray, more: Mapping[str, float | np.ndarray] | None = None
    ) -> "Scores":
        """The scores of a (K, K) integer confusion matrix, rows the true class.

        Args:
            matrix: the counts.
            more: further scores by name, numbers or one for each class, (K,).

        Raises:
            ConfigError: the matrix is not square, or does not hold whole numbers.
        """
        matrix = _checked_matrix(matrix)
        hits, truth, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
        iou = ratio(hits, truth + predicted - hits)
        dice = ratio(2 * hits, truth + predicted)
        accuracy = ratio(hits, truth)
        more = more or {}
        return cls(
            matrix=matrix,
            iou=iou,
            dice=dice,
            accuracy=accuracy,
            frequency=ratio(truth, truth.sum()),
            miou=mean(iou),
            mean_dice=mean(dice),
            mean_accuracy=mean(accuracy),
            pixel_accuracy=float(ratio(hits.sum(), truth.sum())),
            more={name: mean(np.atleast_1d(value)) for name, value in more.items()},
            by_class={n: value for n, value in more.items() if isinstance(value, np.ndarray)},
        )

    def to_dict(self) -> dict[str, Any]:
        """All scores as JSON values; None stands for nan, which JSON does not have."""
        return {
            "miou": _json_number(self.miou),
            "pixel_accuracy": _json_number(self.pixel_accuracy),
            "mean_accuracy": _json_number(self.mean_accuracy),
            "mean_dice": _json_number(self.mean_dice),
            "iou": [_json_number(v) for v in self.iou],
            "accuracy": [_json_number(v) for v in self.accuracy],
            "dice": [_json_number(v) for v in self.dice],
            "frequency": [_json_number(v) for v in self.frequency],
            "pixels": int(self.matrix.sum()),
            **{name: _json_number(value) for name, value in self.more.items()},
            "by_class": {name: [_json_number(v) for v in of] for name, of in self.by_class.items()},
        }


def _checked_matrix(matrix: np.ndarray) -> np.ndarray:
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "iu":
        raise ConfigError(
            f"a confusion matrix is (K, K) and holds whole numbers, found {matrix.shape} "
            f"{matrix.dtype}"
        )
    return matrix.astype(np.int64)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, nan where the whole is empty."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def mean(values: np.ndarray) -> float:
    """Mean of the values that are not nan; nan if there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _json_number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def scores_table(scores: Scores, labels: LabelSet, *, split: str | None = None) -> Table:
    """The scores per class and overall, in percent, to print with rich.

    Args:
        scores: what was measured, of K classes.
        labels: the names of the same K classes.
        split: of the data set, for the title.

    Returns:
        A table with one row per class, a row with the means over the classes (mIoU, mean
        accuracy), one with the pixel accuracy, and one for each further score.

    Raises:
        ConfigError: the label set has another number of classes.
    """
    if len(scores.iou) != labels.num_classes:
        raise ConfigError(
            f"the scores are of {len(scores.iou)} classes, label set {labels.name!r} has "
            f"{labels.num_classes}"
        )
    table = Table(title=table_title(f"{labels.name}, {split}" if split else labels.name))
    table.add_column("class")
    columns = {
        "IoU": (scores.iou, scores.miou),
        "accuracy": (scores.accuracy, scores.mean_accuracy),
        "Dice": (scores.dice, scores.mean_dice),
        **{name: (values, scores.more[name]) for name, values in scores.by_class.items()},
    }
    for heading in (*columns, "pixels"):
        table.add_column(f"{heading} %", justify="right")
    rows = zip(
        labels.classes, *(values for values, _ in columns.values()), scores.frequency, strict=True
    )
    for name, *values in rows:
        table.add_row(Text(name), *(percent(value) for value in values))
    table.add_section()
    table.add_row("mean", *(percent(value) for _, value in columns.values()))
    table.add_row("all pixels", "", percent(scores.pixel_accuracy))
    for name in (name for name in scores.more if name not in scores.by_class):
        # An accuracy stands below accuracies, and an intersection over union below its like.
        column = [""] if "accuracy" in name else []
        table.add_row(Text(name), *column, percent(scores.more[name]))
    return table


def percent(value: float) -> str:
    """A share in percent with two digits, and a dash for nan."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
