"""Measures how far a Flax network is from its PyTorch twin, each figure with its bound.

Float64 proves that both compute the same function. Float32 gradients of a deep random network
are 1e-3 to 1e-2 away from float64 in any framework, so there Flax must be no further from float64
than three times torch's own float32. That distance is a matter of luck: where a rounding error
takes one value across a ReLU's corner it is ten thousand times what it is elsewhere, in one
framework or the other. So the medians of several runs are compared.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from convert import bridge
from convert.formats import FORMATS
from convert.parity.runs import (
    OPTIMIZERS,
    Arrays,
    Batch,
    FlaxRun,
    Step,
    TorchRun,
    random_batch,
    random_state,
)
from flaxseg import models, native
from torch_ref import create_model as create_torch_model

STEPS = 20
RUNS = 20
"""Float32 runs whose median counts, each with another batch or another order of them. The logarithm
of one run's ratio to torch has a standard deviation near 1: five runs could not tell 1.5 from 3."""
TIMES_TORCH = 3.0
RESOLUTION = float(np.finfo(np.float32).eps)
"""Differences below float32's own resolution count as that."""
LEAST_SHARE = 1e-6
"""A gradient counts against its norm, or this share of the whole gradient's if that is larger:
some, like that of the key's bias in front of the softmax, are zero but for rounding."""
ZERO_SHARE = 1e-13
"""A gradient of which float64 has less than this share of the whole gradient's norm is 0 in truth,
such as a bias's in front of a BatchNorm. What float32 has of it is rounding alone, in either
framework: it stays out of the figure of float32. That of float64 holds it to its bound."""


QUANTITIES = {
    "eval": "logits and auxiliary logits in eval mode",
    "train": "the same in train mode, dropout masks given",
    "gradients": "gradient of the worst parameter",
    "statistics": "running statistics after a step",
    "SGD": "worst loss of 20 steps of SGD with momentum",
    "AdamW": "worst loss of 20 steps of AdamW",
}
"""What is compared."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """One measured difference.

    Attributes:
        what: one of `QUANTITIES`, a round trip, or an output of a published network.
        dtype: of the Flax run; "bits" where tensors are counted.
        value: the relative difference from torch in float64, unless `what` says otherwise; or a
            count.
        bound: the largest value that passes.
    """

    what: str
    dtype: str
    value: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the value is within the bound; NaN is not."""
        return bool(self.value <= self.bound)


class Row(NamedTuple):
    """What was measured of one network at one size."""

    network: str
    size: tuple[int, int]
    figures: list[Figure]


class Case(NamedTuple):
    """A network with weights and batches."""

    config: models.Config
    state: Arrays
    batches: list[Batch]

    def flax(self, dtype: str) -> FlaxRun:
        """The Flax network."""
        return FlaxRun(self.config, self.state, dtype)

    def torch(self, dtype: str) -> TorchRun:
        """The PyTorch network; a new one for every run, since training changes it."""
        return TorchRun(self.config, self.state, dtype)


def make_case(
    config: models.Config,
    size: tuple[int, int],
    *,
    seed: int = 0,
    batches: int = STEPS,
    batch: int = 2,
) -> Case:
    """Random weights and batches of `batch` images of one size (H, W)."""
    drawn = [random_batch(config, size, seed + 1 + n, batch) for n in range(batches)]
    return Case(config, random_state(config, seed), drawn)


def measure(case: Case, *, float32_training: bool = True) -> Iterator[Figure]:
    """All figures of a case; those of float32 in train mode take most of the time."""
    for dtype in ("float64", "float32"):
        flax = case.flax(dtype)
        yield eval_figure(flax, case)
        if dtype == "float64" or float32_training:
            yield from step_figures(flax, case)
            yield from training_figures(flax, case)
    yield from round_trip_figures(case)


def eval_figure(flax: FlaxRun, case: Case) -> Figure:
    """Outputs in eval mode."""
    images = case.batches[0].images
    value = outputs_apart(flax.evaluate(images), case.torch("float64").evaluate(images))
    bound = 1e-10 if flax.dtype == "float64" else 1e-5
    return Figure("eval", flax.dtype, value, bound)


def step_figures(flax: FlaxRun, case: Case) -> Iterator[Figure]:
    """Outputs, gradients and running statistics of one training step."""
    runs = []
    for batch in case.batches[: _run_count(flax.dtype)]:
        twins = (case.torch(dtype).step(batch) for dtype in _references(flax.dtype))
        runs.append((flax.step(batch), *twins))
    yield _compare("train", flax.dtype, _step_outputs_apart, runs, 1e-10)
    apart = functools.partial(gradients_apart, zeros=flax.dtype == "float64")
    yield _compare("gradients", flax.dtype, apart, runs, 1e-8)
    ours, exact, *_ = runs[0]
    bound = 1e-10 if flax.dtype == "float64" else 1e-5
    value = statistics_apart(ours, exact)
    yield Figure("statistics", flax.dtype, value, bound)


def training_figures(flax: FlaxRun, case: Case) -> Iterator[Figure]:
    """The losses of a short training with each optimiser."""
    for name, optimizer in OPTIMIZERS.items():
        runs = []
        for run in range(_run_count(flax.dtype)):
            batches = case.batches[run:] + case.batches[:run]
            twins = (case.torch(d).train(batches, optimizer) for d in _references(flax.dtype))
            runs.append((flax.train(batches, optimizer), *twins))
        yield _compare(name, flax.dtype, losses_apart, runs, 1e-8)


def round_trip_figures(case: Case) -> Iterator[Figure]:
    """How many tensors do not come back with the same bits."""
    flax = case.flax("float32")
    before = native.state_dict(flax.model)
    twin = bridge.to_torch(flax.model, create_torch_model(case.config))
    back = bridge.from_torch(twin, models.abstract_model(case.config))
    yield _changed("torch_ref", before, native.state_dict(back))
    for format_ in FORMATS:
        if format_.scope or not format_.stores(case.config):
            continue
        empty = native.fill(
            models.abstract_model(case.config), {k: np.zeros_like(a) for k, a in before.items()}
        )
        format_.import_state(format_.export_state(flax.model), empty)
        covered = {key: a for key, a in before.items() if format_.covers(key)}
        yield _changed(format_.name, covered, native.state_dict(empty))


def outputs_apart(ours: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> float:
    """Largest difference over the largest reference value, of the worst output."""
    return _worst(_relative(a, b) for a, b in zip(ours, exact, strict=True))


def gradients_apart(ours: Step, exact: Step, zeros: bool = True) -> float:
    """Norm of the difference over that of the reference, of the worst parameter.

    Args:
        ours: a step.
        exact: the same step in float64.
        zeros: gradients that are 0 in truth count, see `ZERO_SHARE`.
    """
    if ours.gradients.keys() != exact.gradients.keys():
        return np.inf
    norms = {key: float(np.linalg.norm(g)) for key, g in exact.gradients.items()}
    whole = float(np.linalg.norm(list(norms.values())))
    return _worst(
        float(np.linalg.norm(ours.gradients[key] - exact.gradients[key]))
        / max(norm, LEAST_SHARE * whole)
        for key, norm in norms.items()
        if zeros or norm >= ZERO_SHARE * whole
    )


def statistics_apart(ours: Step, exact: Step) -> float:
    """Largest difference over the largest reference value, of the worst running statistic."""
    if ours.statistics.keys() != exact.statistics.keys():
        return np.inf
    return _worst(_relative(ours.statistics[key], b) for key, b in exact.statistics.items())


def losses_apart(ours: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Relative difference at each step."""
    return np.abs(ours - exact) / np.abs(exact)


def _step_outputs_apart(ours: Step, exact: Step) -> float:
    return outputs_apart(ours.outputs, exact.outputs)


def _compare(
    what: str, dtype: str, apart: Callable, runs: Sequence[tuple[Any, ...]], bound: float
) -> Figure:
    """The worst in float64; in float32 the median distance against that of torch's float32.

    Args:
        what: name of the figure.
        dtype: of the Flax run.
        apart: distance of two results, a number or an array.
        runs: results of Flax, of torch in float64 and, for float32, of torch in float32.
        bound: for float64.
    """
    distances = [apart(ours, exact) for ours, exact, *_ in runs]
    if dtype == "float64":
        return Figure(what, dtype, float(np.max(distances)), bound)
    of_torch = [apart(near, exact) for _, exact, near in runs]
    return Figure(what, dtype, _usual(distances), TIMES_TORCH * _usual(of_torch))


def _run_count(dtype: str) -> int:
    return 1 if dtype == "float64" else RUNS


def _references(dtype: str) -> tuple[str, ...]:
    """Float64 is the truth; torch's float32 says how near to it float32 comes."""
    return ("float64",) if dtype == "float64" else ("float64", "float32")


def _worst(differences: Iterable[float]) -> float:
    """The largest; NaN if one is NaN, which `max` would overlook."""
    return float(np.max(list(differences)))


def _usual(distances: Sequence[float | np.ndarray]) -> float:
    """The median of the runs, where there are steps that of each step's, as a geometric mean."""
    medians = np.median(np.maximum(np.asarray(distances), RESOLUTION), 0)
    return float(np.exp(np.log(medians).mean()))


def _changed(what: str, before: Arrays, after: Mapping[str, np.ndarray]) -> Figure:
    changed = [key for key, array in before.items() if array.tobytes() != after[key].tobytes()]
    return Figure(f"{what} and back", "bits", len(changed), 0)


def _relative(ours: np.ndarray, exact: np.ndarray) -> float:
    if ours.shape != exact.shape:
        return np.inf
    return float(np.max(np.abs(ours - exact)) / np.max(np.abs(exact)))
