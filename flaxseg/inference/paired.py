"""Whether one model is better than another on the same pictures: a paired bootstrap.

Pictures are drawn anew with replacement, the same ones for both models, and the scores computed
again from the sums of their pixels (Efron 1979, https://doi.org/10.1214/aos/1176344552). Pictures
are what varies: pixels of one picture are not independent of each other.
"""

import dataclasses

import numpy as np

from flaxseg.errors import ConfigError, DataError
from flaxseg.inference.per_image import PerImage, iou_of_areas

RESAMPLES = 2000
_TAILS = (0.025, 0.975)


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What the second model gains over the first one, B - A, as shares of 1.

    The last of the K + 1 columns is of the mean over the classes, mIoU.

    Attributes:
        iou: of both models, (2, K + 1); nan for a class that occurs nowhere.
        difference: (K + 1,); nan where one of them has none.
        low: lower end of its 95 % interval, (K + 1,).
        high: upper end.
        better: share of the resamplings in which B is better, (K + 1,).
        pictures: what each picture gains, (N,), see `PerImage.scores`; nan without labels.
        resamples: their number.
    """

    iou: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    better: np.ndarray
    pictures: np.ndarray
    resamples: int


def compare(a: PerImage, b: PerImage, *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Compares two models by what they found in the same pictures.

    A class that a resampling does not hold does not enter that resampling's mean, as in mIoU; its
    interval is of the resamplings that hold it.

    Args:
        a: of one model.
        b: of the other one.
        resamples: how often pictures are drawn anew.
        seed: of the draws.

    Raises:
        DataError: other pictures, classes or label maps, or fewer than two pictures.
        ConfigError: `resamples` is less than 1.
    """
    _check(a, b, resamples)
    count = len(a.names)
    areas = np.stack([a.areas, b.areas])
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    # Sums of whole numbers below 2**53 are exact in float64, whose products are fast.
    flat = areas.reshape(2, count, -1).astype(np.float64)
    iou = _with_mean(iou_of_areas((draws.astype(np.float64) @ flat).reshape(2, resamples, 3, -1)))
    gains = iou[1] - iou[0]
    known = ~np.isnan(gains)
    found = _with_mean(iou_of_areas(areas.sum(1)))
    low, high = np.transpose([_interval(gains[known[:, k], k]) for k in range(gains.shape[1])])
    return Comparison(
        iou=found,
        difference=found[1] - found[0],
        low=low,
        high=high,
        better=np.where(known.any(0), (gains > 0).sum(0) / np.maximum(known.sum(0), 1), np.nan),
        pictures=b.scores - a.scores,
        resamples=resamples,
    )


def _with_mean(iou: np.ndarray) -> np.ndarray:
    """IoU (..., K) with the mean of the classes that have one behind it, (..., K + 1)."""
    known = ~np.isnan(iou)
    total = np.where(known, iou, 0).sum(-1)
    with np.errstate(invalid="ignore"):  # pictures without a labelled pixel have no mean
        mean = total / known.sum(-1)
    return np.concatenate([iou, mean[..., None]], axis=-1)


def _interval(gains: np.ndarray) -> np.ndarray:
    return np.quantile(gains, _TAILS) if gains.size else np.full(2, np.nan)


def _check(a: PerImage, b: PerImage, resamples: int) -> None:
    if resamples < 1:
        raise ConfigError(f"--resamples is {resamples}, it must be at least 1")
    if a.matrices.shape[1:] != b.matrices.shape[1:]:
        raise DataError(
            f"A has {a.matrices.shape[1]} classes, B has {b.matrices.shape[1]}: compare models of "
            "the same classes"
        )
    if a.names != b.names:
        raise DataError(f"A and B are not of the same pictures: {_first_other(a.names, b.names)}")
    if len(a.names) < 2:
        raise DataError(f"there is {len(a.names)} picture, a comparison needs at least 2")
    other = (a.areas[:, 1] != b.areas[:, 1]).any(1)
    if other.any():
        raise DataError(
            f"the label map of {a.names[other.argmax()]} was another one for A than for B: "
            "evaluate both on the same data at the same --eval-size"
        )


def _first_other(a: tuple[str, ...], b: tuple[str, ...]) -> str:
    if len(a) != len(b):
        return f"A has {len(a)}, B has {len(b)}; evaluate both on the same split"
    place, names = next(
        (i, pair) for i, pair in enumerate(zip(a, b, strict=True)) if len({*pair}) > 1
    )
    return f"number {place} is {names[0]} in A and {names[1]} in B; evaluate both on the same split"
