"""Compares with the published networks' own numbers, read through the rename tables.

The numbers lie in the repository beside its tests; an installed package goes without them.
"""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convert.formats import Format, load_format
from convert.parity import golden_rule
from convert.parity.figures import LEAST_SHARE, Figure, Row
from convert.parity.runs import Arrays, Batch, FlaxRun, TorchRun
from convert.rules import Table
from flaxseg import models

GOLDENS = Path(__file__).parents[2] / "tests" / "goldens"


class Published(NamedTuple):
    """Which network made the numbers.

    Attributes:
        origin: name of its format.
        network: the same network here, by its registry name.
        overrides: fields in which it differs from that.
        resize: its outputs are the final ones; else every head's own.
    """

    origin: str
    network: str
    overrides: dict[str, Any] = {}
    resize: bool = False


CASES = {
    "tutorial_ccnet": Published("tutorial", "ccnet", resize=True),
    "mmseg_ccnet_r50-d8": Published("mmseg", "ccnet_r50"),
    "mmseg_ccnet_r101-d8": Published("mmseg", "ccnet_r101"),
    "original_ccnet_r101": Published("original", "ccnet_r101_original"),
    "tutorial_bisenetv2": Published("tutorial", "bisenetv2_matmul", resize=True),
    "tutorial_bisenetv2_fixed": Published(
        "tutorial", "bisenetv2", {"fusion": "product"}, resize=True
    ),
    "tutorial_bisenetv2_fixed_sum": Published("tutorial", "bisenetv2", resize=True),
    "mmseg_bisenetv2": Published("mmseg", "bisenetv2_mmseg"),
    "coincheung_bisenetv2": Published("coincheung", "bisenetv2_coincheung", resize=True),
    "notebook_vit_pets": Published("notebook", "vitseg", resize=True),
    "tutorial_segformer_b0": Published("tutorial", "segformer", resize=True),
    "tutorial_segformer_b2": Published(
        "tutorial",
        "segformer",
        {
            "backbone.widths": (64, 128, 320, 512),
            "backbone.depths": (3, 4, 6, 3),
            "channels": 768,
        },
        resize=True,
    ),
    "nvlabs_segformer_b0": Published("nvlabs", "segformer_b0"),
    "nvlabs_segformer_b2": Published("nvlabs", "segformer_b2"),
    "hf_segformer_b0": Published("huggingface", "segformer_b0_hf"),
    "hf_segformer_b1": Published("huggingface", "segformer_b1_hf"),
    "hf5_segformer_b0": Published("huggingface5", "segformer_b0_hf"),
    "mmseg_segformer_b0": Published("mmseg", "segformer_b0_mmseg"),
    "mmseg_segformer_b1": Published("mmseg", "segformer_b1_mmseg"),
    "mmseg_segformer_b2": Published("mmseg", "segformer_b2_mmseg"),
    "mmseg_segformer_b5": Published("mmseg", "segformer_b5_mmseg"),
    "eps_tutorial_segformer_b0": Published("tutorial", "segformer"),
    "eps_nvlabs_segformer_b0": Published("nvlabs", "segformer_b0"),
    "eps_hf_segformer_b0": Published("huggingface", "segformer_b0_hf"),
    "eps_mmseg_segformer_b0": Published("mmseg", "segformer_b0_mmseg"),
    "mmseg_setr_naive": Published("mmseg", "setr_naive"),
    "mmseg_setr_pup": Published("mmseg", "setr_pup"),
    "fudan_setr_naive": Published(
        "original", "setr_naive_original", {"backbone.image_size": (192, 192)}, resize=True
    ),
    "fudan_setr_pup": Published(
        "original", "setr_pup_original", {"backbone.image_size": (192, 192)}, resize=True
    ),
    "eps_mmseg_setr_naive": Published("mmseg", "setr_naive"),
}
"""Name of the files -> the network."""

TRAINED = (
    "tutorial_ccnet",
    "tutorial_segformer_b0",
    "tutorial_bisenetv2",
    "tutorial_bisenetv2_fixed",
    "tutorial_bisenetv2_fixed_sum",
    "mmseg_bisenetv2",
    "coincheung_bisenetv2",
)
"""The networks of which a training step is recorded as well, in float64."""

TIMES_NOISE = 10
TRAINING_BOUND = 1e-8


@dataclasses.dataclass(frozen=True)
class Golden:
    """A published network's numbers.

    Attributes:
        name: of its files.
        format: the layout of its checkpoints.
        config: the same network here.
        resize: its outputs are the final ones; else every head's own.
        keys: its own names, shapes and twins.
        record: what it computed in eval mode, with the noise floor of every output.
    """

    name: str
    format: Format
    config: models.Config
    resize: bool
    keys: golden_rule.Keys
    record: Arrays

    @functools.cached_property
    def table(self) -> Table:
        """From native keys to the peer's."""
        return self.format.table(models.abstract_model(self.config))

    @functools.cached_property
    def weights(self) -> Arrays:
        """The peer's state dict."""
        weights = golden_rule.weights(self.keys)
        if "shrink_factor" in self.record:
            weights = golden_rule.shrink(
                weights,
                float(self.record["shrink_factor"]),
                str(self.record["shrink_prefix"]),
                tuple(map(str, self.record["shrink_also"])),
            )
        return weights

    @functools.cached_property
    def native_state(self) -> Arrays:
        """The weights under native keys."""
        native = self.table.to_native(self.weights)
        return {key: np.asarray(array) for key, array in native.items()}

    @property
    def outputs(self) -> list[str]:
        """Names of what was recorded."""
        return list(map(str, self.record["names"]))

    @property
    def image(self) -> np.ndarray:
        """What the network was shown, (B, 3, H, W)."""
        return _image(self.record)


def load_golden(name: str) -> Golden:
    """One of `CASES`."""
    published = CASES[name]
    record = _load(f"{name}.npz")
    keys = load_keys(str(record["keys"]))
    overrides = dict(published.overrides)
    if "num_classes" in record:
        overrides["num_classes"] = int(record["num_classes"])
    config = models.get_config(published.network, **overrides)
    format_ = load_format(published.origin, models.architecture_of(config))
    return Golden(name, format_, config, published.resize, keys, record)


def load_keys(name: str) -> golden_rule.Keys:
    """A published network's keys with shapes, in the order of its state dict.

    Twins of a tensor are listed under the name of the first.
    """
    shapes, twins = {}, {}
    for line in (GOLDENS / f"{name}.keys.txt").read_text().splitlines():
        entry, _, twin = line.partition(" = ")
        key, *dims = entry.split()
        shapes[key] = tuple(map(int, dims))
        if twin:
            twins[key] = twin
    return golden_rule.Keys(shapes, twins)


def rows(name: str) -> list[Row]:
    """Every figure of one of `CASES`, in Flax."""
    golden = load_golden(name)
    found = [Row(f"golden {name}", _size(golden.record), list(eval_figures(golden, FlaxRun)))]
    if name in TRAINED:
        record = _training_record(golden)
        figures = list(training_figures(golden, FlaxRun))
        found.append(Row(f"golden {name}, train", _size(record), figures))
    return found


def eval_figures(
    golden: Golden, run: type[FlaxRun] | type[TorchRun], state: Arrays | None = None
) -> Iterator[Figure]:
    """Outputs in eval mode: largest difference against the published network's own noise.

    Args:
        golden: what was published.
        run: in which framework to compute.
        state: native weights from elsewhere; the golden's own if None.
    """
    network = run(golden.config, golden.native_state if state is None else state, "float32")
    outputs = _evaluate(golden, network)
    for name in golden.outputs:
        if name == "logits":
            yield _classes_changed(golden, outputs["logits"])
        rows, cols = golden.record[f"{name}_rows"], golden.record[f"{name}_cols"]
        value = _largest(outputs[name][:, :, rows][..., cols] - golden.record[name])
        bound = TIMES_NOISE * float(golden.record[f"{name}_noise"])
        yield Figure(name, "float32", value, bound)


def _evaluate(golden: Golden, network: FlaxRun | TorchRun) -> Arrays:
    """The outputs under the record's names: the encoder's maps, or logits and auxiliary ones."""
    if "logits" not in golden.outputs:
        return dict(zip(golden.outputs, network.features(golden.image), strict=True))
    logits, *aux = network.evaluate(golden.image, resize=golden.resize)
    outputs = {"logits": logits} | {f"aux{i}": scores for i, scores in enumerate(aux)}
    if "head" in golden.outputs:
        outputs["head"] = network.evaluate(golden.image, resize=False)[0]
    return outputs


def _classes_changed(golden: Golden, logits: np.ndarray) -> Figure:
    step = int(golden.record["argmax_stride"])
    classes = logits.argmax(1)[:, ::step, ::step]
    changed = int((classes != golden.record["argmax"]).sum())
    return Figure("pixels of another class", "float32", changed, 0)


def training_figures(golden: Golden, run: type[FlaxRun] | type[TorchRun]) -> Iterator[Figure]:
    """Loss, gradients and running statistics of one training step in float64."""
    record = _training_record(golden)
    image = _image(record)
    shape = (len(image), *_size(record))
    labels = golden_rule.labels(int(record["labels_seed"]), golden.config.num_classes, shape)
    weights = tuple(map(float, record["loss_weights"][1:]))
    config = dataclasses.replace(golden.config, aux_weights=weights, **_without_dropout(golden))
    step = run(config, golden.native_state, "float64").step(Batch(image, labels))
    ours = golden.table.to_foreign({**step.gradients, **step.statistics})
    running = np.array([np.linalg.norm(ours[key]) for key in record["running_keys"]])
    values = {
        "loss": _largest(step.loss / record["loss"] - 1),
        "worst gradient": _gradients_apart(ours, record),
        "running statistics": _largest(running / record["running_norm"] - 1),
    }
    for what, value in values.items():
        yield Figure(what, "float64", value, TRAINING_BOUND)


def _without_dropout(golden: Golden) -> dict[str, Any]:
    """The records were made with every dropout switched off."""
    names = {field.name for field in dataclasses.fields(golden.config)}
    changes: dict[str, Any] = {"dropout": 0.0} if "dropout" in names else {}
    if isinstance(golden.config, models.SegFormerConfig):
        changes["backbone"] = dataclasses.replace(golden.config.backbone, drop_path=0.0)
    return changes


def _gradients_apart(ours: Arrays, record: Arrays) -> float:
    """The worst difference of a gradient's norm or of one of its first values, over its norm."""
    least = LEAST_SHARE * float(record["total_grad_norm"])
    worst = []
    for key, norm, head in zip(
        record["grad_keys"], record["grad_norm"], record["grad_head"], strict=True
    ):
        unit = max(norm, least)
        kept = head[~np.isnan(head)]
        worst.append(abs(np.linalg.norm(ours[key]) - norm) / unit)
        worst.append(_largest(ours[key].ravel()[: kept.size] - kept) / unit)
    return float(np.max(worst))


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
