"""Every network trains through the same loop."""

import csv
import dataclasses

import numpy as np
import pytest

from convert.parity.networks import COMPARISONS
from flaxseg.inference import read_image
from flaxseg.training import fit, make_config

pytestmark = pytest.mark.usefixtures("compiled_once", "quick_depthwise")

SIZES = {"bisenetv2": (64, 64), "segformer_b0": (48, 40), "setr_pup": (37, 50), "vitseg": (32, 48)}
"""Networks of the architectures that the other tests do not train; odd sizes where they fit."""

LOSSES = {
    "bisenetv2": {"loss": ("ohem",), "ohem_threshold": 0.5, "aux_weight": (0.0,)},
    "segformer_b0": {"loss": ("cross_entropy", "dice=3"), "class_weights": ("auto",)},
    "setr_pup": {"loss": ("lovasz", "focal"), "loss_per_image": True, "aux_loss": ("ohem_mmseg",)},
    "vitseg": {"loss": ("cross_entropy", "iou"), "label_smoothing": 0.1},
}
"""Each loss trains with one of them."""

SHALLOW = {
    "bisenetv2": {"backbone.detail_layers": (1, 1, 1), "backbone.semantic_layers": (1, 1, 1)},
    "segformer_b0": {
        "backbone.widths": (8, 12),
        "backbone.depths": (1, 1),
        "backbone.heads": (1, 2),
        "backbone.reductions": (4, 1),
    },
}
"""Compiling takes most of the time here, and layers that repeat add nothing."""


LEARNING_RATES = {"setr_pup": 0.01}


@pytest.fixture(params=SIZES)
def config(request, tmp_path):
    name = request.param
    overrides = {**COMPARISONS[name].overrides}
    overrides.pop("num_classes")
    for field in ("image_size", "backbone.image_size"):
        overrides.pop(field, None)
    overrides |= SHALLOW.get(name, {})
    return make_config(
        name,
        override=tuple(f"{key}={_text(value)}" for key, value in overrides.items()),
        limit=48,  # few epochs, as each of them writes a checkpoint
        image_size=SIZES[name],
        steps=30,
        lr=LEARNING_RATES.get(name, 0.05),
        optimizer="sgd",
        log_every=1,
        eval_every=100,
        devices=1,
        workdir=str(tmp_path / "run"),
        **LOSSES[name],
    )


def _text(value):
    return ",".join(map(str, value)) + "," if isinstance(value, tuple) else str(value)


def test_trains(config, quiet):
    if config.model == "vitseg":  # resuming is the same for all: the fastest one does
        stopped = fit(dataclasses.replace(config, max_steps=10), quiet)
        assert not stopped.finished and stopped.step == 10
    result = fit(config, quiet)
    assert result.finished and result.step == 30
    with open(config.directory / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["loss"]]
    losses = np.array([float(row["loss"]) for row in rows])
    assert [int(row["step"]) for row in rows] == list(range(1, 31))
    assert losses[-5:].mean() < 0.95 * losses[:5].mean()
    (overlay,) = (config.directory / "overlays").iterdir()
    assert read_image(overlay).std() > 10
