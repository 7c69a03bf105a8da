"""The PyTorch BiSeNetV2 by itself and beside flaxseg, which must not differ unnoticed."""

import dataclasses
import itertools
import math

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from jax import numpy as jnp

import torch_ref
from convert import bridge
from convert.parity import figures
from convert.parity.runs import FlaxRun
from flaxseg import models, native, ops
from flaxseg.errors import ConfigError
from flaxseg.models import bisenetv2
from flaxseg.models.bisenetv2 import Aggregation
from flaxseg.ops import BatchNorm

NAMES = models.list_models("bisenetv2*")
# The smallest network in which every mutated part matters.
TINY = {
    "num_classes": 3,
    "backbone.detail_channels": (4, 4, 6),
    "backbone.detail_layers": (1, 1, 1),
    "backbone.semantic_channels": (4, 4, 6, 6),
    "backbone.semantic_layers": (1, 1, 2),
    "backbone.expansion": 2,
    "head_channels": 6,
    "aux_channels": (3, 4, 5, 6),
    "dropout": 0.0,
}
SIZES = {
    "bisenetv2": (64, 96),
    "bisenetv2_matmul": (64, 64),
    "bisenetv2_mmseg": (33, 47),
    "bisenetv2_coincheung": (64, 96),
}


def tiny(name: str, **overrides) -> torch_ref.BiSeNetV2:
    return torch_ref.create_model(name, **{**TINY, **overrides}).eval()


@pytest.mark.parametrize("name", NAMES)
def test_output_sizes(name):
    size = SIZES[name]
    images = torch.zeros(2, 3, *size)
    final = tiny(name)(images, aux=True)
    assert [x.shape for x in (final.logits, *final.aux)] == [(2, 3, *size)] * 5
    raw = tiny(name)(images, resize=False, aux=True)
    strides = (8, 2, 4, 8, 16) if name == "bisenetv2_coincheung" else (8, 4, 8, 16, 32)
    for x, stride in zip((raw.logits, *raw.aux), strides, strict=True):
        assert x.shape[2:] == tuple(-(-side // stride) for side in size)


def test_aux_is_empty_unless_asked_for():
    images = torch.zeros(1, 3, 32, 32)
    assert tiny("bisenetv2")(images).aux == ()
    assert tiny("bisenetv2", aux_channels=(), aux_weights=())(images, aux=True).aux == ()


@pytest.mark.parametrize(
    ("name", "size"), [("bisenetv2", (33, 64)), ("bisenetv2_matmul", (64, 96))]
)
def test_sizes_that_do_not_fit(name, size):
    with pytest.raises(ConfigError, match=f"{size[0]}x{size[1]} pixels do not fit"):
        tiny(name)(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("name", NAMES)
def test_initialisation_has_the_same_moments(name):
    torch.manual_seed(0)
    sizes = {"backbone.detail_channels": (32, 32, 64), "head_channels": 64, "num_classes": 50}
    sizes |= {"backbone.semantic_channels": (16, 32, 64, 64), "aux_channels": (32, 32, 32, 32)}
    config = models.get_config(name, **{**TINY, **sizes})
    ours = native.state_dict(models.build(config, rngs=nnx.Rngs(0)))
    theirs = bridge.state_dict(torch_ref.create_model(config))
    assert ours.keys() == theirs.keys()
    biases = [], []
    for key, b in theirs.items():
        a = ours[key]
        if b.ndim == 4:
            # A ratio of two estimates from n values each errs by 1 / sqrt(n) (normal).
            assert abs(a.std() / b.std() - 1) <= 5 / math.sqrt(b.size), key
            assert abs(a.mean() - b.mean()) <= 5 * b.std() * math.sqrt(2 / b.size), key
        elif b.std() == 0:
            np.testing.assert_array_equal(a, b, err_msg=key)
        else:
            bound = 1 / math.sqrt(math.prod(theirs[key.replace("bias", "weight")].shape[1:]))
            for side, array in zip(biases, (a, b), strict=True):
                side.append(array / bound)
    assert bool(biases[0]) == (config.classifier_init == "torch")
    for side in biases:
        spread = np.concatenate(side or [np.linspace(-1, 1, 1001)])
        assert abs(spread).max() <= 1 and abs(spread.std() * math.sqrt(3) - 1) <= 0.1


@pytest.fixture(scope="module")
def cases() -> dict[str, figures.Case]:
    """One batch of four images for each network: a normalised context needs more than one."""
    return {
        name: figures.make_case(models.get_config(name, **TINY), size, batches=1, batch=4)
        for name, size in SIZES.items()
    }


def passes(run: FlaxRun, case: figures.Case) -> bool:
    return figures.eval_figure(run, case).passed


@pytest.mark.parametrize("name", NAMES)
def test_the_unchanged_network_passes(name, cases):
    case = cases[name]
    run = case.flax("float64")
    assert passes(run, case)
    assert [f for f in figures.step_figures(run, case) if not f.passed] == []


def test_the_third_fusion_agrees_too(cases):
    config = dataclasses.replace(cases["bisenetv2"].config, fusion="product")
    case = cases["bisenetv2"]._replace(config=config)
    assert passes(case.flax("float64"), case)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bisenetv2", {"align_corners": False}),
        ("bisenetv2", {"fusion": "product"}),
        ("bisenetv2", {"upsampling": "nearest"}),
        ("bisenetv2", {"fused_activation": "relu"}),
        ("bisenetv2_matmul", {"fusion": "product"}),
        ("bisenetv2_matmul", {"fusion": "sum"}),
        ("bisenetv2_mmseg", {"align_corners": True}),
        ("bisenetv2_mmseg", {"fused_activation": "none"}),
        ("bisenetv2_coincheung", {"align_corners": True}),
        ("bisenetv2_coincheung", {"upsampling": "bilinear"}),
    ],
)
def test_another_design_is_noticed(name, change, cases):
    case = cases[name]
    config = dataclasses.replace(case.config, **change)
    assert not passes(FlaxRun(config, case.state, "float64"), case)


def sigmoid_before_enlarging(monkeypatch):
    enlarge, is_gate = Aggregation._enlarge, itertools.cycle([True, False])

    def mutated(self, x, size):
        if not next(is_gate):
            return enlarge(self, x, size)
        gate = enlarge(self, jax.nn.sigmoid(x), size)
        return jnp.log(gate) - jnp.log1p(-gate)

    monkeypatch.setattr(Aggregation, "_enlarge", mutated)


def other_corners_in_the_aggregation(monkeypatch):
    def mutated(self, x, size):
        return ops.resize_bilinear(x, size, align_corners=not self.config.align_corners)

    monkeypatch.setattr(Aggregation, "_enlarge", mutated)


def border_divides_by_what_it_covers(monkeypatch):
    pool = ops.avg_pool
    monkeypatch.setattr(ops, "avg_pool", lambda x, *w: pool(x, *w) / pool(jnp.ones_like(x), *w))


def planes_the_other_way_round(monkeypatch):
    multiply = bisenetv2._multiply_planes
    monkeypatch.setattr(bisenetv2, "_multiply_planes", lambda x, y: multiply(y, x))


def smooth_in_the_auxiliary_heads(monkeypatch):
    nearest = ops.resize_nearest

    def mutated(x, size):
        twice = size[0] == 2 * x.shape[1]
        return ops.resize_bilinear(x, size) if twice else nearest(x, size)

    monkeypatch.setattr(ops, "resize_nearest", mutated)


@pytest.mark.parametrize(
    ("name", "mutate"),
    [
        ("bisenetv2", sigmoid_before_enlarging),
        ("bisenetv2", other_corners_in_the_aggregation),
        ("bisenetv2", border_divides_by_what_it_covers),
        ("bisenetv2_matmul", planes_the_other_way_round),
        ("bisenetv2_mmseg", sigmoid_before_enlarging),
        ("bisenetv2_mmseg", other_corners_in_the_aggregation),
        ("bisenetv2_coincheung", smooth_in_the_auxiliary_heads),
    ],
)
def test_a_mutation_is_noticed(name, mutate, cases, monkeypatch):
    mutate(monkeypatch)
    assert not passes(cases[name].flax("float64"), cases[name])


def test_a_biased_running_variance_is_noticed(cases, monkeypatch):
    def statistics(self, x):
        mean, var = x.mean((0, 1, 2)), jnp.var(x, (0, 1, 2))
        self._update(self.running_mean, mean)
        self._update(self.running_var, var)
        return mean, var

    monkeypatch.setattr(BatchNorm, "_batch_statistics", statistics)
    case = cases["bisenetv2_mmseg"]
    failed = [f.what for f in figures.step_figures(case.flax("float64"), case) if not f.passed]
    assert failed == ["statistics"]
