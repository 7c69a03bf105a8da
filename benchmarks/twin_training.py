"""Trains a network and its PyTorch twin from the same weights on the same batches.

    python benchmarks/twin_training.py --model segformer_b0 --data camvid --data-dir CamVid \
        --override dropout=0 backbone.drop_path=0 --workdir runs/twins

takes the flags of `train.py`. Augmentation, order of the images, schedule and groups of weights are
those of the run; what differs is the framework that computes. Writes losses.csv, scores.json and
losses.png, and prints the scores on the validation images after every evaluation. Dropout has to be
off, since the frameworks draw other masks.
"""

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jax import numpy as jnp
from torch.nn import functional as F

import torch_ref
from convert import bridge
from convert.parity.runs import DROPOUTS
from flaxseg import cli, data
from flaxseg.errors import ConfigError
from flaxseg.inference.metrics import Scores, confusion_matrix
from flaxseg.labels import IGNORE
from flaxseg.sharding import put_batch
from flaxseg.training.config import TrainConfig
from flaxseg.training.optim import configured
from flaxseg.training.optim.groups import match
from flaxseg.training.setup import Setup

SMOOTH = 20
"""Steps that a point of the picture is a mean of."""

MIRRORED = {"optimizer": ("sgd", "adamw"), "loss": (("cross_entropy",),), "accumulate": (1,)}
MIRRORED |= {"ema": (None,), "swa_start": (None,), "clip_grad": (None,), "dtype": ("float32",)}
"""Values of the settings that the PyTorch side knows as well."""


class FlaxTwin:
    """The run as `train.py` makes it."""

    def __init__(self, setup: Setup):
        """Draws the weights."""
        self.setup = setup
        self.state = setup.init()

    def step(self, batch: data.Batch) -> float:
        """Makes an update and returns the loss before it."""
        image, label = put_batch((batch.image, batch.label), self.setup.mesh)
        self.state, metrics = self.setup.program(self.state, image, label)
        return float(metrics.loss)

    def scores(self) -> Scores:
        """On the validation images."""
        state = self.state
        batches = self.setup.datasets.val_batches
        return self.setup.evaluator(state.params, state.stats, batches).scores


class TorchTwin:
    """The same in PyTorch."""

    def __init__(self, twin: FlaxTwin):
        """Takes over the weights."""
        self.setup = twin.setup
        self.count = 0
        model = self.setup.model(twin.state)
        self.model = bridge.to_torch(model, torch_ref.create_model(self.setup.model_config))
        if any(isinstance(layer, DROPOUTS) and layer.p > 0 for layer in self.model.modules()):
            raise ConfigError("dropout is on: switch it off with --override, see flaxseg.models")
        self.optimizer = torch_optimizer(self.setup.config, model, self.model)

    def step(self, batch: data.Batch) -> float:
        """Makes an update and returns the loss before it."""
        rate = float(np.asarray(self.setup.schedule(self.count)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        weights = self.setup.objective.aux_weights
        output = self.model.train()(self._images(batch.image), aux=bool(weights))
        labels = torch.from_numpy(batch.label.astype(np.int64))
        loss = torch.zeros(())
        for weight, logits in zip((1.0, *weights), (output.logits, *output.aux), strict=True):
            loss = loss + weight * _cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.count += 1
        return loss.item()

    @torch.inference_mode()
    def scores(self) -> Scores:
        """On the validation images."""
        classes = self.setup.datasets.val.labels.num_classes
        total = np.zeros((classes, classes), np.int64)
        self.model.eval()
        for batch in self.setup.datasets.val_batches:
            labels = np.where(batch.weight[:, None, None] > 0, batch.label, IGNORE)
            logits = self.model(self._images(batch.image)).logits
            found = _resized(logits, torch.from_numpy(labels)).argmax(1).numpy()
            total += np.asarray(confusion_matrix(found, labels, classes), np.int64)
        return Scores.from_matrix(total)

    def _images(self, images: np.ndarray) -> torch.Tensor:
        normalised = np.asarray(self.setup.preprocess(jnp.asarray(images)))
        return torch.from_numpy(normalised.transpose(0, 3, 1, 2).copy())


def torch_optimizer(
    config: TrainConfig, model: Any, twin: torch.nn.Module
) -> torch.optim.Optimizer:
    """The run's optimiser with its groups of weights."""
    factors_of = match(configured.configured_rules(config, model))
    groups: dict[Any, list[torch.nn.Parameter]] = {}
    for key, parameter in twin.named_parameters():
        groups.setdefault(factors_of(key), []).append(parameter)
    listed = [
        {"params": weights, "factor": f.lr, "weight_decay": config.weight_decay * f.decay}
        for f, weights in groups.items()
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(listed, config.lr, config.betas)
    return torch.optim.SGD(listed, config.lr, config.momentum, nesterov=config.nesterov)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(_resized(logits, labels), labels, ignore_index=IGNORE)


def _resized(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)


def train(setup: Setup) -> tuple[dict[str, list[float]], list[dict[str, Any]]]:
    """Trains both; returns the loss before each update, and the scores after the evaluations."""
    flax = FlaxTwin(setup)
    twins: dict[str, FlaxTwin | TorchTwin] = {"flaxseg": flax, "torch_ref": TorchTwin(flax)}
    losses: dict[str, list[float]] = {name: [] for name in twins}
    scores = []
    for step, batch in enumerate(setup.datasets.train_batches, start=1):
        for name, twin in twins.items():
            losses[name].append(twin.step(batch))
        if setup.calendar.wants_evaluation(step):
            miou = {name: float(twin.scores().miou) for name, twin in twins.items()}
            means = {name: float(np.mean(values[-SMOOTH:])) for name, values in losses.items()}
            scores.append({"step": step, "miou": miou, "loss": means})
            print(f"step {step}: loss {_pair(means)}, mIoU {_pair(miou)}", flush=True)
        if step == setup.total_steps:
            break
    return losses, scores


def _pair(values: Mapping[str, float]) -> str:
    return " and ".join(f"{value:.4f} ({name})" for name, value in values.items())


def draw(losses: Mapping[str, list[float]], scores: Iterable[dict[str, Any]], path: Path) -> None:
    """Loss curves, smoothed, and scores in one picture."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    scores = list(scores)
    for (name, values), style in zip(losses.items(), ("-", "--"), strict=True):
        smooth = np.convolve(values, np.full(SMOOTH, 1 / SMOOTH), "valid")
        left.plot(np.arange(SMOOTH, len(values) + 1), smooth, style, label=name)
        points = [(score["step"], score["miou"][name]) for score in scores]
        right.plot(*zip(*points, strict=True), style, marker="o", label=name)
    left.set(xlabel="step", ylabel=f"training loss, mean of {SMOOTH} steps")
    right.set(xlabel="step", ylabel="validation mIoU")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def run(args: list[str]) -> None:
    """Reads the flags, trains, and writes what came of it."""
    config = cli.parse_train_config(args, Path(__file__).name)
    for name, known in MIRRORED.items():
        if (value := getattr(config, name)) not in known:
            raise ConfigError(f"{name} is {value!r}: the PyTorch side knows {known} alone")
    setup = Setup.of(config)
    folder = config.directory
    folder.mkdir(parents=True, exist_ok=True)
    losses, scores = train(setup)
    with (folder / "losses.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *losses])
        writer.writerows((n, *pair) for n, pair in enumerate(zip(*losses.values(), strict=True), 1))
    (folder / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    draw(losses, scores, folder / "losses.png")
    print(f"losses.csv, scores.json and losses.png are in {folder}")


if __name__ == "__main__":
    sys.exit(cli.guarded(lambda: run(sys.argv[1:])))
