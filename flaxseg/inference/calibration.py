"""One temperature that makes a network's probabilities mean what they say.

Guo et al. 2017, https://arxiv.org/abs/1706.04599: logits are divided by one number before the
softmax, the one with the lowest negative log-likelihood on pictures that the network was not
trained on. No label changes by it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxseg.data import Batch
from flaxseg.errors import DataError
from flaxseg.inference.evaluate import check_batch
from flaxseg.inference.logits import make_logits_fn
from flaxseg.inference.windows import Windows
from flaxseg.labels import IGNORE, LabelSet
from flaxseg.models import Model
from flaxseg.preprocess import Preprocess

BINS = 15
"""Of the confidence, of equal width, as in the paper's tables."""

PRECISION = 1e-3
"""Share of a temperature up to which it is found."""

_GRID = tuple(2.0**power for power in range(4, -5, -1))
_MOST_PASSES = 12


class Reliability(NamedTuple):
    """How far probabilities can be trusted.

    Attributes:
        nll: mean negative log-likelihood of the true classes, in nats a pixel.
        ece: expected calibration error, 0 to 1: mean distance of confidence and accuracy over 15
            bins of confidence, weighted by their pixels.
    """

    nll: float
    ece: float


class Calibration(NamedTuple):
    """What a calibration found.

    Attributes:
        temperature: the best one.
        start: the one before.
        before: with that.
        after: with the best one.
    """

    temperature: float
    start: float
    before: Reliability
    after: Reliability

    @property
    def better(self) -> bool:
        """Whether the likelihood gains more by it than what the precision is worth."""
        return self.after.nll < (1 - PRECISION**2) * self.before.nll

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        sides = {"before": self.before._asdict(), "after": self.after._asdict()}
        return {"temperature": self.temperature, "start": self.start, **sides}

    def __str__(self) -> str:
        (nll, ece), (nll_after, ece_after) = self.before, self.after
        return (
            f"temperature {self.start:.4g} -> {self.temperature:.4g}: "
            f"expected calibration error {100 * ece:.2f} -> {100 * ece_after:.2f} %, "
            f"negative log-likelihood {nll:.4f} -> {nll_after:.4f}"
        )


@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums over all labelled pixels, for each of T temperatures.

    Attributes:
        loss: negative log-likelihoods, (T,).
        slope: their derivatives by the inverse of the temperature, (T,); they grow with it.
        curvature: second derivatives, (T,), not negative.
        bins: pixels, those predicted right, and confidences by bin of confidence, (T, 3, 15).
    """

    loss: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray
    bins: np.ndarray

    def reliability(self, place: int) -> Reliability:
        """At the temperature of a place."""
        pixels, right, confidence = self.bins[place]
        total = pixels.sum()
        return Reliability(
            float(self.loss[place] / total), float(np.abs(right - confidence).sum() / total)
        )


Measure = Callable[[Sequence[float]], Sums]
"""Temperatures -> sums at them."""


def calibrate(
    model: Model,
    passes: Callable[[], Iterable[Batch]],
    *,
    labels: LabelSet,
    preprocess: Preprocess,
    windows: Windows | None = None,
    start: float | None = None,
) -> Calibration:
    """Finds the temperature of a model on labelled pictures; the model is left as it is.

    The pictures are gone through two or three times. Memory holds the logits of one batch.

    Args:
        model: a segmenter of this library; it is run in eval mode.
        passes: gives the batches, such as `flaxseg.data.eval_loader` does, the same ones for each
            pass. Pixels labelled `IGNORE` and samples of weight 0 do not count. Each shape compiles
            once.
        labels: the classes the model knows.
        preprocess: how its images were normalised.
        windows: where the network looks at a picture; None looks at it as a whole.
        start: the temperature that it has; None: 1.

    Raises:
        ConfigError: the model has another number of classes.
        DataError: a label is outside the label set, no pixel is labelled, or the best temperature
            is not between 1/16 and 16.
    """
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    look = make_logits_fn(graphdef, labels, preprocess, _read, windows=windows)

    def measure(temperatures: Sequence[float]) -> Sums:
        inverse = np.array([1 / value for value in temperatures], np.float32)
        sums, bins = np.zeros((3, len(inverse))), np.zeros((len(inverse), 3, BINS))
        for batch in passes():
            image, label, weight, _ = check_batch(batch, labels)
            found = look(params, stats, image, label.shape[1:3], label, weight, inverse)
            values, binned = (np.asarray(rows).sum((1, 2), dtype=np.float64) for rows in found)
            sums, bins = sums + values.T, bins + binned
        loss, slope, curvature = sums
        return Sums(loss, slope, curvature, bins)

    return find_temperature(measure, 1.0 if start is None else start)


def find_temperature(measure: Measure, start: float = 1.0) -> Calibration:
    """The temperature with the lowest loss, to one in a thousand.

    The loss is a convex function of the inverse temperature. A grid brackets the root of its
    slope, an interpolation finds it nearly, and Newton's steps, each of which goes through all
    pictures, end it.

    Args:
        measure: goes through the pictures.
        start: the temperature before.

    Raises:
        DataError: no pixel is labelled, or the root is outside the grid.
    """
    grid = measure((*_GRID, start))
    if not grid.bins[-1, 0].any():
        raise DataError("no pixel of the pictures is labelled: a temperature needs some that are")
    falls = grid.slope[:-1] < 0
    if falls.all() or not falls.any():
        side = f"below {_GRID[-1]:.4g}" if falls.all() else f"above {_GRID[0]:.4g}"
        why = "right" if falls.all() else "no better than by guessing"
        raise DataError(
            f"the best temperature is {side}: the network predicts these pixels {why}, so they "
            "tell nothing about how sure it should be; calibrate on pictures that it was not "
            "trained on, of the classes that it knows"
        )
    place = int(falls.sum()) - 1
    low, high = (1 / _GRID[place + step] for step in (0, 1))
    inverse = _interpolated(
        (low, high), grid.slope[place : place + 2], grid.curvature[place : place + 2]
    )
    for _ in range(_MOST_PASSES):
        found = measure([1 / inverse])
        step = -float(found.slope[0] / found.curvature[0])
        if abs(step) <= PRECISION * inverse:
            break
        low, high = (inverse, high) if step > 0 else (low, inverse)
        inverse = inverse + step if low < inverse + step < high else (low + high) / 2
    return Calibration(1 / inverse, start, grid.reliability(-1), found.reliability(0))


def _interpolated(ends: tuple[float, float], slope: np.ndarray, curvature: np.ndarray) -> float:
    """Where a growing slope is 0 between two ends, by the cubic of the inverse function."""
    low, high = ends
    change = slope[1] - slope[0]
    t = -slope[0] / change
    first, last = change / curvature
    cubic = (
        (1 + 2 * t) * (1 - t) ** 2 * low
        + t * (1 - t) ** 2 * first
        + t**2 * (3 - 2 * t) * high
        + t**2 * (t - 1) * last
    )
    return float(cubic) if low < cubic < high else (low + high) / 2


def _read(
    logits: jax.Array, label: jax.Array, weight: jax.Array, inverse: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sums over the pixels of each row; to be called inside `jax.jit`.

    Rows are short enough for 32 bits, whatever the number of pictures.

    Args:
        logits: (B, H, W, K).
        label: class ids, (B, H, W).
        weight: of the samples, (B,).
        inverse: of the temperatures, (T,).

    Returns:
        Loss, slope and curvature, (T, B, H, 3), and what `Sums.bins` says, (T, B, H, 3, 15).
    """
    counts = (label != IGNORE) & (weight > 0)[:, None, None]
    true_class = jnp.where(counts, label, 0).astype(jnp.int32)
    # Relative to the highest: no power overflows.
    logits = logits - logits.max(-1, keepdims=True)
    true = jnp.take_along_axis(logits, true_class[..., None], -1)[..., 0]
    right = jnp.argmax(logits, -1) == true_class

    def at(inverse: jax.Array) -> tuple[jax.Array, jax.Array]:
        power = jnp.exp(inverse * logits)
        total = power.sum(-1)
        mean = (power * logits).sum(-1) / total
        spread = (power * (logits - mean[..., None]) ** 2).sum(-1) / total
        values = jnp.stack([jnp.log(total) - inverse * true, mean - true, spread], -1)
        confidence = 1 / total
        bins = jnp.clip(jnp.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(jnp.int32)
        inside = jax.nn.one_hot(bins, BINS, dtype=logits.dtype) * counts[..., None]
        binned = [(inside * each[..., None]).sum(2) for each in (counts, right, confidence)]
        return jnp.where(counts[..., None], values, 0).sum(2), jnp.stack(binned, 2)

    return jax.lax.map(at, inverse)
