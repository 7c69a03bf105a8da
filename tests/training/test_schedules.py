"""Learning rates, against torch's, the peers' formulas and the tutorials' recorded ones."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from flaxseg.training import make_config
from flaxseg.training.optim import make_schedule

RECORDED = json.loads((Path(__file__).parents[1] / "goldens/learning_rates.json").read_text())
"""What the tutorials' own code used in each of its epochs."""

pytestmark = pytest.mark.usefixtures("x64")


def rates(counts, steps_per_epoch=10, total_steps=40, **fields):
    schedule = make_schedule(make_config(**fields), steps_per_epoch, total_steps)
    return [float(schedule(count)) for count in counts]


@pytest.mark.parametrize(
    ("model", "data", "key"),
    [
        ("ccnet", "camvid", "ccnet"),
        ("setr", "camvid", "setr"),
        ("bisenetv2", "camvid", "bisenetv2"),
        ("vitseg", "pets", "pets"),
    ],
)
@pytest.mark.parametrize("steps_per_epoch", [3, 91])
def test_tutorials_use_their_recorded_rates(model, data, key, steps_per_epoch):
    config = make_config(model, data, "tutorial")
    epochs = config.epochs
    schedule = make_schedule(config, steps_per_epoch, epochs * steps_per_epoch)
    first = schedule(np.arange(epochs) * steps_per_epoch)
    last = schedule(np.arange(1, epochs + 1) * steps_per_epoch - 1)
    np.testing.assert_allclose(first, RECORDED[key], rtol=1e-15)
    np.testing.assert_array_equal(first, last)


def test_float32_rates_are_the_recorded_ones():
    config = make_config("setr", "camvid", "tutorial")
    with jax.enable_x64(False):
        schedule = make_schedule(config, 91, 9100)
        first = np.asarray(schedule(np.arange(100, dtype=np.int32) * 91))
    assert first.dtype == np.float32
    np.testing.assert_allclose(first, RECORDED["setr"], rtol=2e-7)


def test_poly_falls_from_lr_to_zero():
    found = rates((0, 10, 30, 40), schedule="poly", lr=0.2, power=0.9)
    np.testing.assert_allclose(found, [0.2, 0.2 * 0.75**0.9, 0.2 * 0.25**0.9, 0], rtol=1e-12)


def test_linear_stays_at_its_end():
    found = rates((0, 5, 20, 30), schedule="linear", lr=0.2, min_lr=0.1, schedule_epochs=2)
    np.testing.assert_allclose(found, [0.2, 0.175, 0.1, 0.1], rtol=1e-12)


def torch_rates(make, steps=40, lr=0.2):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("fields", "make"),
    [
        (
            {"schedule": "cosine", "min_lr": 0.01},
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40, eta_min=0.01),
        ),
        (
            {"schedule": "multistep", "milestones": (1, 3), "gamma": 0.1},
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [10, 30], 0.1),
        ),
        (
            {"schedule": "step", "step_size": 2, "gamma": 0.3},
            lambda o: torch.optim.lr_scheduler.StepLR(o, 20, 0.3),
        ),
        (
            {"schedule": "poly", "power": 0.9},
            lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 40, 0.9),
        ),
        ({"schedule": "constant"}, lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
    ],
    ids=lambda value: value["schedule"] if isinstance(value, dict) else "",
)
def test_equals_torch(fields, make):
    np.testing.assert_allclose(rates(range(40), lr=0.2, **fields), torch_rates(make), rtol=1e-12)


def test_warmup_rises_linearly_without_shifting_the_schedule():
    fields = {"schedule": "step", "lr": 0.1, "step_size": 1, "gamma": 0.5, "warmup_epochs": 0.5}
    found = rates((0, 1, 3, 4, 7, 8), steps_per_epoch=8, **fields)
    np.testing.assert_allclose(found, [0.025, 0.05, 0.1, 0.1, 0.1, 0.05], rtol=1e-12)


def test_warmup_of_mmsegmentation():
    """mmcv 1: the poly rate of the step, times 1 - (1 - step / 1500) * (1 - ratio)."""
    fields = {"schedule": "poly", "power": 1.0, "warmup_steps": 1500, "warmup_ratio": 1e-6}
    found = rates((0, 700, 1499, 1500, 90_000), total_steps=160_000, lr=6e-5, **fields)
    poly = [6e-5 * (1 - step / 160_000) for step in (0, 700, 1499, 1500, 90_000)]
    part = [1 - (1 - min(1, step / 1500)) * (1 - 1e-6) for step in (0, 700, 1499, 1500, 90_000)]
    # Their form of the factor cancels: it has 10 digits at the first step.
    np.testing.assert_allclose(found, np.multiply(poly, part), rtol=1e-10)


def test_warmup_of_coincheung():
    """Exponential from a tenth; the poly schedule starts behind it."""
    fields = {
        "schedule": "poly", "power": 0.9, "warmup": "exponential", "warmup_steps": 1000,
        "warmup_ratio": 0.1, "after_warmup": True,
    }  # fmt: skip
    found = rates((0, 250, 999, 1000, 80_000), total_steps=150_000, lr=5e-3, **fields)
    rise = [5e-3 * 0.1 ** (1 - step / 1000) for step in (0, 250, 999)]
    fall = [5e-3 * (1 - (step - 1000) / 149_000) ** 0.9 for step in (1000, 80_000)]
    np.testing.assert_allclose(found, rise + fall, rtol=1e-12)


def test_schedule_by_epoch_does_not_change_within_one():
    found = rates((0, 9, 10, 19, 39), schedule="linear", lr=0.4, schedule_by="epoch")
    np.testing.assert_allclose(found, [0.4, 0.4, 0.3, 0.3, 0.1], rtol=1e-12)


def test_averaging_has_a_rate_of_its_own():
    found = rates((0, 19, 20, 39), schedule="constant", lr=0.4, swa_start=2, swa_lr=0.05)
    np.testing.assert_allclose(found, [0.4, 0.4, 0.05, 0.05], rtol=1e-12)
