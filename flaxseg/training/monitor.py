"""Reads what the steps report without making the device wait."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from flaxseg.training.step import StepMetrics


class Reading(NamedTuple):
    """The metrics of one step as Python numbers.

    Attributes:
        step: number of updates made, this one included.
        loss: total loss before the update.
        grad_norm: Euclidean norm of the whole gradient.
        lr: learning rate of the update.
        index: positions of the batch's examples in the source, (B,).
        accuracy: share of all pixels predicted right before the update; None where not asked for.
        terms: what the loss is the sum of, by name; empty where it is one thing.
    """

    step: int
    loss: float
    grad_norm: float
    lr: float
    index: np.ndarray
    accuracy: float | None = None
    terms: Mapping[str, float] = MappingProxyType({})

    @property
    def finite(self) -> bool:
        """Whether the update left finite parameters behind."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Monitor:
    """Holds back the metrics of the latest step until the next one has been started."""

    def __init__(self):
        """Holds nothing yet."""
        self._pending: tuple[int, StepMetrics, np.ndarray] | None = None

    def push(self, step: int, metrics: StepMetrics, index: np.ndarray) -> Reading | None:
        """Takes a step that was just started and returns the one before it."""
        reading = self.flush()
        self._pending = (step, metrics, index)
        return reading

    def flush(self) -> Reading | None:
        """Waits for the step that is held back, if any, and returns it."""
        if self._pending is None:
            return None
        (step, metrics, index), self._pending = self._pending, None
        values = jax.device_get(metrics)
        right = None if values.accuracy is None else float(values.accuracy)
        numbers = float(values.loss), float(values.grad_norm), float(values.lr)
        terms = {name: float(value) for name, value in (values.terms or {}).items()}
        return Reading(step, *numbers, index, right, terms)
