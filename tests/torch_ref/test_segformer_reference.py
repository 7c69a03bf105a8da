"""The SegFormer reference by itself and beside flaxseg, and what the comparison notices."""

import dataclasses
import functools
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
from convert.parity.runs import FlaxRun, random_batch
from flaxseg import models, native, ops
from flaxseg.models import mit, segformer

FAMILIES = ("segformer", "segformer_b0", "segformer_b0_hf", "segformer_b0_mmseg")

# Two stages, one with a reduction and one without; the second has two heads.
TINY = {
    "num_classes": 3,
    "channels": 6,
    "backbone.widths": (4, 8),
    "backbone.depths": (1, 1),
    "backbone.heads": (1, 2),
    "backbone.reductions": (2, 1),
    "backbone.mlp_ratio": 2,
}
SIZE = (19, 29)
"""Maps of 5x8 and 3x4: the reduction leaves a row out."""


def tiny(name: str, **overrides) -> models.SegFormerConfig:
    return models.get_config(name, **{**TINY, **overrides})


@pytest.mark.parametrize("name", FAMILIES)
def test_output_sizes(name):
    model = torch_ref.create_model(tiny(name)).eval()
    images = torch.zeros(1, 3, *SIZE)
    assert model(images).logits.shape == (1, 3, *SIZE)
    assert model(images, aux=True).aux == ()
    assert model(images, resize=False).logits.shape == (1, 3, 5, 8)
    assert [x.shape[1:] for x in model.backbone(images)] == [(4, 5, 8), (8, 3, 4)]


def test_float64():
    model = torch_ref.create_model(tiny("segformer")).double().eval()
    assert model(torch.zeros(1, 3, *SIZE).double()).logits.dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "shape"), [("segformer", (2, 1, 1, 6)), ("segformer_b0_hf", (2, 5, 8, 6))]
)
def test_single_values_or_whole_channels_are_dropped(name, shape):
    *paths, last = random_batch(tiny(name), SIZE, 0).masks
    assert last.shape == shape
    # The first block is never dropped; both branches of the second are.
    assert [path.shape for path in paths] == [(2, 1, 1)] * 2

    torch.manual_seed(0)
    dropout = torch_ref.create_model(tiny(name, dropout=0.5)).head.dropout.train()
    whole = (dropout(torch.ones(4, 16, 8, 8)) == 0).flatten(2).float().mean(2)
    assert bool(((whole == 0) | (whole == 1)).all()) == (name == "segformer")


@pytest.mark.parametrize("name", FAMILIES)
def test_initialisation_has_the_same_moments(name):
    torch.manual_seed(0)
    config = tiny(name, num_classes=40, channels=64, **{"backbone.widths": (24, 32)})
    ours = native.state_dict(models.fresh_model(config, rngs=nnx.Rngs(0)))
    theirs = bridge.state_dict(torch_ref.create_model(config))
    assert ours.keys() == theirs.keys()
    for key, b in theirs.items():
        a = ours[key]
        if b.std() == 0:
            np.testing.assert_array_equal(a, b, err_msg=key)
            continue
        # A ratio of two estimates from n values each errs by 1 / sqrt(n) at most (normal).
        assert abs(math.log(a.std() / b.std())) <= 5 / math.sqrt(b.size), key
        assert abs(a.mean() - b.mean()) <= 5 * b.std() * math.sqrt(2 / b.size), key


@pytest.fixture(scope="module", params=["segformer_b0", "segformer_b0_mmseg"])
def case(request) -> figures.Case:
    return figures.make_case(tiny(request.param), SIZE, batches=1)


def noticed(case: figures.Case, config: models.Config | None = None) -> bool:
    """Whether outputs in eval mode differ from the reference's by more than the bound."""
    return not figures.eval_figure(
        FlaxRun(config or case.config, case.state, "float64"), case
    ).passed


def test_float64_outputs_and_gradients(case):
    exact = case.flax("float64")
    measured = [figures.eval_figure(exact, case), *figures.step_figures(exact, case)]
    assert [figure for figure in measured if not figure.passed] == []
    assert not noticed(case)


@pytest.mark.parametrize("name", ["embed_norm_eps", "reduction_norm_eps", "norm_eps"])
def test_another_epsilon_is_noticed(case, name):
    backbone = dataclasses.replace(
        case.config.backbone, **{name: getattr(case.config.backbone, name) * 1.1}
    )
    assert noticed(case, dataclasses.replace(case.config, backbone=backbone))


def test_other_heads_are_noticed(case):
    backbone = dataclasses.replace(case.config.backbone, heads=(2, 2))
    assert noticed(case, dataclasses.replace(case.config, backbone=backbone))


def test_another_order_of_concatenation_is_noticed(case, monkeypatch):
    head = segformer.MLPHead if case.config.head == "mlp" else segformer.ConvHead
    fuse = head.fuse_levels
    monkeypatch.setattr(
        head, "fuse_levels", lambda self, levels, parts: fuse(self, levels, list(parts)[::-1])
    )
    assert noticed(case)


def test_value_before_key_is_noticed(case, monkeypatch):
    attention = ops.attention
    monkeypatch.setattr(ops, "attention", lambda q, k, v, counts: attention(q, v, k, counts))
    assert noticed(case)


def test_other_corners_are_noticed(case, monkeypatch):
    resize = ops.resize_bilinear
    monkeypatch.setattr(
        ops, "resize_bilinear", lambda x, size, **_: resize(x, size, align_corners=True)
    )
    assert noticed(case)


def test_a_reduction_that_keeps_leftovers_is_noticed(case, monkeypatch):
    reduce = mit.ReductionConv.__call__

    def padded(self, x):
        rows, cols = (-n % self.stride for n in x.shape[1:3])
        return reduce(self, jnp.pad(x, ((0, 0), (0, rows), (0, cols), (0, 0))))

    monkeypatch.setattr(mit.ReductionConv, "__call__", padded)
    assert noticed(case)


def test_a_missing_depthwise_convolution_is_noticed(case, monkeypatch):
    convolve = ops.Conv.__call__
    monkeypatch.setattr(
        ops.Conv, "__call__", lambda self, x: x if self.groups > 1 else convolve(self, x)
    )
    assert noticed(case)


def test_another_activation_is_noticed(case, monkeypatch):
    monkeypatch.setattr(ops, "gelu", functools.partial(jax.nn.gelu, approximate=True))
    assert noticed(case)


def test_another_rate_of_dropped_paths_is_noticed(case):
    backbone = dataclasses.replace(case.config.backbone, drop_path=0.2)
    run = FlaxRun(dataclasses.replace(case.config, backbone=backbone), case.state, "float64")
    train = next(f for f in figures.step_figures(run, case) if f.what == "train")
    assert not train.passed
