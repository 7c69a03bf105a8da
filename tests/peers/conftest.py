"""Makes the peers' packages importable, and random networks at their published size.

PyPI's torchvision has operators for a CUDA build of torch, mmcv-lite has none of mmcv's: both are
needed for other networks alone, so that names without code behind them do.
"""

import importlib
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from convert.parity.runs import random_state
from flaxseg import models, native

OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _pure_python_ops() -> None:
    mmcv = importlib.import_module("mmcv")
    ops = types.ModuleType("mmcv.ops")
    ops.__path__ = [str(Path(mmcv.__path__[0]) / "ops")]
    sys.modules["mmcv.ops"] = mmcv.ops = ops
    ops.CrissCrossAttention = importlib.import_module("mmcv.ops.cc_attention").CrissCrossAttention
    for name in ("PSAMask", "point_sample", "sigmoid_focal_loss"):
        setattr(ops, name, None)


_pure_python_ops()


@pytest.fixture
def network():
    """Makes a network at its published size, filled with random numbers."""

    def make(name: str, **overrides) -> models.Model:
        config = models.get_config(name, **overrides)
        return native.fill(models.abstract_model(config), random_state(config, 0))

    return make


@pytest.fixture
def images():
    """Makes random images (1, 3, H, W)."""

    def make(height: int, width: int) -> torch.Tensor:
        pixels = np.random.default_rng(1).standard_normal((1, 3, height, width), np.float32)
        return torch.from_numpy(pixels)

    return make


@pytest.fixture
def same():
    """Compares a peer's logits (B, K, h, w) with those of a Flax network on the same images."""

    def check(model: models.Model, images: torch.Tensor, theirs: torch.Tensor) -> None:
        flax = models.eval_view(model)(images.numpy().transpose(0, 2, 3, 1), resize=False).logits
        ours = np.asarray(flax).transpose(0, 3, 1, 2)
        bound = 1e-5 * theirs.abs().max().item()
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=bound)

    return check
