"""The PyTorch BiSeNetV2 by itself and beside flaxseg, which must not differ unnoticed."""

import dataclasses
import itertools
import math
from typing import NamedTuple

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from jax import numpy as jnp

import torch_ref
from convert import bridge
from convert.parity import figures
from convert.parity.runs import COMPILER_OPTIONS, FlaxRun
from flaxseg import models, native, ops
from flaxseg.errors import ConfigError
from flaxseg.models import bisenetv2
from flaxseg.models.bisenetv2 import Aggregation, SegHead
from torch_ref import bisenetv2 as reference

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


def fresh(config) -> dict[str, np.ndarray]:
    """A new flaxseg network's tensors; drawn one by one, which compiles each shape once."""
    return native.state_dict(models.build(config, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("name", ["bisenetv2", "bisenetv2_mmseg", "bisenetv2_coincheung"])
def test_initialisation_has_the_same_moments(name):
    torch.manual_seed(0)
    sizes = {"backbone.detail_channels": (32, 32, 64), "head_channels": 64, "num_classes": 50}
    sizes |= {"backbone.semantic_channels": (16, 32, 64, 64), "aux_channels": (32, 32, 32, 32)}
    config = models.get_config(name, **{**TINY, **sizes})
    ours = fresh(config)
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


class Twins(NamedTuple):
    """One part of the network in both frameworks with equal float64 weights, and its inputs."""

    flax: nnx.Module
    torch: torch.nn.Module
    inputs: tuple[np.ndarray, ...]

    def agree(self) -> bool:
        """Whether both give the same in eval mode; the inputs are (B, H, W, C)."""
        with jax.enable_x64(True):
            graphdef, state = nnx.split(models.eval_view(self.flax))
            run = jax.jit(
                lambda state, *inputs: nnx.merge(graphdef, state)(*inputs),
                compiler_options=COMPILER_OPTIONS["float64"],
            )
            ours = np.asarray(run(state, *self.inputs))
        channels_first = (torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in self.inputs)
        with torch.inference_mode():
            theirs = self.torch.eval()(*channels_first).numpy()
        assert ours.dtype == theirs.dtype == np.float64
        return figures.outputs_apart([ours.transpose(0, 3, 1, 2)], [theirs]) <= 1e-12


def make_twins(ours: type, theirs: type, config, *args, sizes, options=None, **change) -> Twins:
    """A class in both frameworks with the same arguments, but for `change` in our configuration."""
    options = options or {}
    rng = np.random.default_rng(0)
    twin = theirs(config, *args, **options).double()
    state = {
        key: rng.random(x.shape) - 0.5 if x.ndim == 4 else 0.5 + rng.random(x.shape)
        for key, x in bridge.state_dict(twin).items()
    }
    config = dataclasses.replace(config, **change)
    with jax.enable_x64(True):
        wide = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        layer = nnx.eval_shape(lambda: ours(config, *args, **options, **wide, rngs=nnx.Rngs(0)))
        native.fill(layer, state)
    inputs = tuple(rng.standard_normal(size) for size in sizes)
    return Twins(layer, bridge.fill(twin, state), inputs)


def aggregation(name: str, **change) -> Twins:
    width = 8 if name == "bisenetv2_matmul" else 12
    sizes = (2, 8, width, 6), (2, 2, width // 4, 6)
    config = models.get_config(name, **TINY)
    return make_twins(Aggregation, reference.Aggregation, config, sizes=sizes, **change)


@pytest.mark.parametrize("name", NAMES)
def test_aggregations_agree(name):
    assert aggregation(name).agree()


def test_aggregation_of_odd_maps():
    config = models.get_config("bisenetv2_mmseg", **TINY)
    sizes = (2, 5, 7, 6), (2, 2, 2, 6)
    assert make_twins(Aggregation, reference.Aggregation, config, sizes=sizes).agree()


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
        ("bisenetv2_coincheung", {"upsampling": "bilinear"}),
    ],
)
def test_another_aggregation_is_noticed(name, change):
    assert not aggregation(name, **change).agree()


def sigmoid_before_enlarging(monkeypatch):
    enlarge, is_gate = Aggregation._enlarge, itertools.cycle([True, False])

    def mutated(self, x, size):
        if not next(is_gate):
            return enlarge(self, x, size)
        gate = enlarge(self, jax.nn.sigmoid(x), size)
        return jnp.log(gate) - jnp.log1p(-gate)

    monkeypatch.setattr(Aggregation, "_enlarge", mutated)


def border_divides_by_what_it_covers(monkeypatch):
    pool = ops.avg_pool
    monkeypatch.setattr(ops, "avg_pool", lambda x, *w: pool(x, *w) / pool(jnp.ones_like(x), *w))


def planes_the_other_way_round(monkeypatch):
    multiply = bisenetv2._multiply_planes
    monkeypatch.setattr(bisenetv2, "_multiply_planes", lambda x, y: multiply(y, x))


@pytest.mark.parametrize(
    ("name", "mutate"),
    [
        ("bisenetv2", sigmoid_before_enlarging),
        ("bisenetv2", border_divides_by_what_it_covers),
        ("bisenetv2_matmul", planes_the_other_way_round),
        ("bisenetv2_mmseg", sigmoid_before_enlarging),
    ],
)
def test_a_mutated_aggregation_is_noticed(name, mutate, monkeypatch):
    mutate(monkeypatch)
    assert not aggregation(name).agree()


def head_twins(config) -> Twins:
    options = {"second": "upsampled", "second_channels": 4}
    sizes = [(2, 3, 4, 5)]
    return make_twins(SegHead, reference.SegHead, config, 5, 3, sizes=sizes, options=options)


def test_auxiliary_heads_enlarge_by_repetition(monkeypatch):
    config = models.get_config("bisenetv2_coincheung", **TINY)
    assert head_twins(config).agree()
    monkeypatch.setattr(ops, "resize_nearest", ops.resize_bilinear)
    assert not head_twins(config).agree()


@pytest.fixture(scope="module")
def case() -> figures.Case:
    """Four images: the context's norms see one value for each."""
    config = models.get_config("bisenetv2_coincheung", **TINY)
    return figures.make_case(config, (64, 32), batches=1, batch=4)


@pytest.mark.parametrize("align_corners", [False, True])
def test_other_corners_at_the_end_are_noticed(align_corners, case):
    # This network's aggregation repeats pixels: the last interpolation alone has corners.
    config = dataclasses.replace(case.config, align_corners=align_corners)
    run = FlaxRun(config, case.state, "float64")
    assert figures.eval_figure(run, case).passed == (not align_corners)
