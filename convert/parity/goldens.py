"""Compares with the published networks' own numbers, read through the rename tables.

The numbers lie in the repository beside its tests; an installed package goes without them.
"""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from convert.formats import Format, load_format
from convert.parity import golden_rule
from convert.parity.figures import LEAST_SHARE, Figure, Row
from convert.parity.runs import Arrays, Batch, FlaxRun, Step, TorchRun
from flaxseg import models

GOLDENS = Path(__file__).parents[2] / "tests" / "goldens"
CASES = {
    "tutorial_ccnet": ("tutorial", "ccnet"),
    "mmseg_ccnet_r50-d8": ("mmseg", "ccnet_r50"),
    "mmseg_ccnet_r101-d8": ("mmseg", "ccnet_r101"),
}
"""Name of the files -> format and registry name of the network."""

TRAINED = "tutorial_ccnet"
"""The network of which a training step is recorded as well, in float64."""

TIMES_NOISE = 10
TRAINING_BOUND = 1e-8


@dataclasses.dataclass(frozen=True)
class Golden:
    """A published network's numbers.

    Attributes:
        name: of its files.
        format: the layout of its checkpoints.
        config: the same network here.
        shapes: its key -> shape, in its order.
        outputs: what it computed in eval mode, with the noise floor of every output.
    """

    name: str
    format: Format
    config: models.Config
    shapes: dict[str, tuple[int, ...]]
    outputs: Arrays

    @functools.cached_property
    def native_state(self) -> Arrays:
        """The weights under native keys."""
        table = self.format.table(models.abstract_model(self.config))
        return table.to_native(golden_rule.weights(self.shapes))

    def native_keys(self) -> list[str]:
        """Native keys in the order of the peer's state dict."""
        links = self.format.table(models.abstract_model(self.config)).links
        names = {k: n for link in links for n, k in zip(link.native, link.foreign, strict=True)}
        return [names[key] for key in self.shapes if key in names]


def load_golden(name: str) -> Golden:
    """One of `CASES`."""
    format_, network = CASES[name]
    lines = (GOLDENS / f"{name}.keys.txt").read_text().splitlines()
    shapes = {key: tuple(map(int, dims)) for key, *dims in map(str.split, lines)}
    outputs = _load(f"{name}.npz")
    config = models.get_config(network, num_classes=int(outputs["num_classes"]))
    return Golden(name, load_format(format_), config, shapes, outputs)


def golden_rows() -> Iterator[Row]:
    """Every figure of every published network, in Flax."""
    for name in CASES:
        golden = load_golden(name)
        for figure in forward_figures(golden, FlaxRun):
            yield Row(name, _size(golden.outputs), figure)
        if name == TRAINED:
            for figure in training_figures(golden, FlaxRun):
                yield Row(name, _size(_training_record(golden)), figure)


def forward_figures(golden: Golden, run: type[FlaxRun] | type[TorchRun]) -> Iterator[Figure]:
    """Outputs in eval mode: largest difference against the published network's own noise."""
    expected = golden.outputs
    image = _image(expected)
    # What is enlarged last was recorded before that: it is small.
    resize = golden.config.upsample == "x8"
    network = run(golden.config, golden.native_state, "float32")
    names = [name for name in ("logits", "aux") if name in expected]
    outputs = dict(zip(names, network.evaluate(image, resize=resize), strict=True))
    changed = int((outputs["logits"].argmax(1) != expected["argmax"]).sum())
    yield Figure("golden, eval: pixels of another class", "float32", changed, 0)
    if "rows" in expected:
        outputs["logits"] = outputs["logits"][:, :, expected["rows"]][..., expected["cols"]]
    for name, output in outputs.items():
        value = _largest(output - expected[name])
        bound = TIMES_NOISE * float(expected[f"{name}_noise"])
        yield Figure(f"golden, eval: {name}, absolute", "float32", value, bound)


def training_figures(golden: Golden, run: type[FlaxRun] | type[TorchRun]) -> Iterator[Figure]:
    """Loss, gradients and running statistics of one training step in float64."""
    expected = _training_record(golden)
    image = _image(expected)
    shape = (len(image), *_size(expected))
    labels = golden_rule.labels(int(expected["labels_seed"]), golden.config.num_classes, shape)
    batch = Batch(image, labels, ())
    step = run(golden.config, golden.native_state, "float64").step(batch)
    keys = golden.native_keys()
    running = np.array([np.linalg.norm(step.statistics[k]) for k in keys if k in step.statistics])
    values = {
        "loss": _largest(step.loss / expected["loss"] - 1),
        "worst gradient": _gradients_apart(step, keys, expected),
        "running statistics": _largest(running / expected["running_norm"] - 1),
    }
    for what, value in values.items():
        yield Figure(f"golden, train: {what}", "float64", value, TRAINING_BOUND)


def _gradients_apart(step: Step, keys: list[str], expected: Arrays) -> float:
    """The worst difference of a gradient's norm or of one of its first values, over its norm."""
    gradients = [step.gradients[key] for key in keys if key in step.gradients]
    scale = np.maximum(expected["grad_norm"], LEAST_SHARE * expected["total_grad_norm"])
    norms = np.array([np.linalg.norm(gradient) for gradient in gradients])
    differences = [_largest((norms - expected["grad_norm"]) / scale)]
    for gradient, head, unit in zip(gradients, expected["grad_head"], scale, strict=True):
        kept = head[~np.isnan(head)]
        differences.append(_largest((gradient.ravel()[: kept.size] - kept) / unit))
    return float(np.max(differences))


def _training_record(golden: Golden) -> Arrays:
    return _load(f"{golden.name}.train.npz")


def _load(name: str) -> Arrays:
    with np.load(GOLDENS / name) as archive:
        return dict(archive)


def _size(record: Arrays) -> tuple[int, int]:
    _, _, height, width = record["image_shape"]
    return int(height), int(width)


def _image(record: Arrays) -> np.ndarray:
    return golden_rule.image(int(record["image_seed"]), tuple(record["image_shape"]))


def _largest(differences: np.ndarray) -> float:
    return float(np.max(np.abs(differences)))
