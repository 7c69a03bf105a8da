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

SHALLOW = {
    "backbone.depths": (1, 1, 1, 1),
    "backbone.detail_layers": (1, 1, 1),
    "backbone.semantic_layers": (1, 1, 1),
}
"""Compiling takes most of the time here, and layers that repeat add nothing."""


@pytest.fixture(params=SIZES)
def config(request, tmp_path):
    name = request.param
    overrides = {**COMPARISONS[name].overrides}
    overrides.pop("num_classes")
    for field in ("image_size", "backbone.image_size"):
        overrides.pop(field, None)
    overrides |= {field: depths for field, depths in SHALLOW.items() if field in overrides}
    return make_config(
        name,
        override=tuple(f"{key}={_text(value)}" for key, value in overrides.items()),
        limit=16,
        image_size=SIZES[name],
        steps=30,
        lr=3e-3,
        optimizer="adamw",
        log_every=1,
        eval_every=100,
        devices=1,
        workdir=str(tmp_path / "run"),
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
