"""SETR in PyTorch beside flaxseg: equal where it must be, unequal where something is changed."""

import dataclasses

import numpy as np
import pytest
import torch
from flax import nnx
from jax import numpy as jnp

import torch_ref
from convert import bridge
from convert.parity import figures
from convert.parity.networks import COMPARISONS, small_config
from convert.parity.runs import FlaxRun
from flaxseg import models, native
from flaxseg.errors import ConfigError

DROPOUTS = {"embed_dropout": 0.1, "dropout": 0.1, "attn_dropout": 0.2}


@pytest.fixture(autouse=True)
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def failures(case: figures.Case) -> list[figures.Figure]:
    exact = case.flax("float64")
    measured = [figures.eval_figure(exact, case), *figures.step_figures(exact, case)]
    assert len(measured) == 4
    return [figure for figure in measured if not figure.passed]


@pytest.mark.parametrize("name", ["setr_naive_original", "setr_pup_original"])
def test_equals_flax(name):
    """The others are compared, and trained, with all networks in test_parity."""
    size = COMPARISONS[name].sizes[0]
    assert failures(figures.make_case(small_config(name), size, batches=1)) == []


def test_equals_flax_with_dropout_and_remat():
    config = small_config("setr_mla")
    backbone = dataclasses.replace(config.backbone, **DROPOUTS)
    config = dataclasses.replace(config, backbone=backbone, remat=True)
    case = figures.make_case(config, (37, 50), batches=1)
    assert len(case.batches[0].masks) == 1 + 4 * 4
    assert failures(case) == []


def test_images_of_another_size_are_refused():
    with pytest.raises(ConfigError, match="images of 48x32 pixels do not fit"):
        torch_ref.create_model(small_config("setr"))(torch.zeros(1, 3, 48, 32))


@pytest.fixture(scope="module", params=["setr", "setr_naive", "setr_mla"])
def case(request) -> figures.Case:
    return figures.make_case(
        small_config(request.param), COMPARISONS[request.param].sizes[0], batches=1
    )


def noticed(run: FlaxRun, case: figures.Case) -> bool:
    return not figures.eval_figure(run, case).passed


def reconfigured(case: figures.Case, **changes) -> FlaxRun:
    return FlaxRun(models.override(case.config, changes), case.state, "float64")


def reweighted(case: figures.Case, key: str, array: np.ndarray) -> FlaxRun:
    return FlaxRun(case.config, {**case.state, key: array}, "float64")


def other_encoder_eps(case: figures.Case) -> FlaxRun:
    eps = 1.1 * case.config.backbone.norm_eps
    return reconfigured(case, **{"backbone.norm_eps": eps})


def other_corners(case: figures.Case) -> FlaxRun:
    return reconfigured(case, align_corners=not case.config.align_corners)


def other_class_token(case: figures.Case) -> FlaxRun:
    other = "keep" if case.config.backbone.class_token == "drop" else "drop"
    return reconfigured(case, **{"backbone.class_token": other})


def other_layers(case: figures.Case) -> FlaxRun:
    return reconfigured(case, **{"backbone.out_indices": (0, 1, 3, 2)})


def columns_before_rows(case: figures.Case) -> FlaxRun:
    table = case.state["backbone.pos_embed"]
    patches = table[:, 1:].reshape(1, 4, 6, -1).swapaxes(1, 2).reshape(1, 24, -1)
    turned = np.concatenate([table[:, :1], patches], 1)
    return reweighted(case, "backbone.pos_embed", turned)


def class_token_last(case: figures.Case) -> FlaxRun:
    table = np.roll(case.state["backbone.pos_embed"], -1, axis=1)
    return reweighted(case, "backbone.pos_embed", table)


def channels_fastest(case: figures.Case) -> FlaxRun:
    key = "backbone.patch_embed.proj.weight"
    kernel = case.state[key]
    return reweighted(case, key, kernel.reshape(-1, 8, 8, 3).transpose(0, 3, 1, 2))


def other_qkv_order(case: figures.Case) -> FlaxRun:
    key = "backbone.blocks.1.attn.qkv.weight"
    return reweighted(case, key, np.roll(case.state[key], 32, axis=0))


def heads_interleaved(case: figures.Case) -> FlaxRun:
    key = "backbone.blocks.1.attn.qkv.weight"
    weight = case.state[key].reshape(3, 16, 2, 32).swapaxes(1, 2).reshape(96, 32)
    return reweighted(case, key, weight)


MUTATIONS = {
    "setr": [other_corners, channels_fastest],
    "setr_naive": [
        other_encoder_eps,
        other_corners,
        columns_before_rows,
        class_token_last,
        other_qkv_order,
        heads_interleaved,
    ],
    "setr_mla": [other_class_token, other_layers],
}


@pytest.mark.parametrize(
    ("case", "mutate"),
    [(name, mutate) for name, mutations in MUTATIONS.items() for mutate in mutations],
    indirect=["case"],
)
def test_a_mutation_is_noticed(mutate, case):
    assert noticed(mutate(case), case)


@pytest.mark.parametrize("case", ["setr_naive", "setr_mla"], indirect=True)
def test_another_eps_in_the_heads_is_noticed(case):
    assert noticed(reconfigured(case, norm_eps=1.1e-6), case)


@pytest.mark.parametrize("case", ["setr_mla"], indirect=True)
def test_another_order_of_levels_is_noticed(case):
    assert noticed(reconfigured(case, deepest_first=False), case)


@pytest.mark.parametrize("case", ["setr_naive"], indirect=True)
def test_another_padding_is_noticed(case):
    """Half of it at the top and left, where the network has all at the bottom and right."""
    images = case.batches[0].images
    assert images.shape[2:] == (37, 50)
    moved = np.pad(images, ((0, 0), (0, 0), (1, 2), (3, 3)))
    outputs = case.flax("float64").evaluate(moved, resize=False)
    expected = case.torch("float64").evaluate(images, resize=False)
    assert [x.shape for x in outputs] == [x.shape for x in expected]
    assert figures.outputs_apart(outputs, expected) > 1e-3


@pytest.mark.parametrize("case", ["setr_naive"], indirect=True)
def test_positions_that_are_repeated_instead_of_interpolated_are_noticed(case, monkeypatch):
    def repeat(self, grid):
        table = self.pos_embed[...]
        return jnp.concatenate([table, table[:, 1:]], 1)[:, : 1 + grid[0] * grid[1]]

    monkeypatch.setattr(models.ViT, "positions", repeat)
    assert noticed(case.flax("float64"), case)


@pytest.mark.parametrize("side", ["flax", "torch"])
@pytest.mark.parametrize("name", ["setr", "setr_pup", "setr_mla", "setr_mla_original"])
def test_heads_start_as_published(name, side):
    config = models.override(small_config(name), {"channels": 32, "num_classes": 60})
    torch.manual_seed(0)
    if side == "flax":
        state = native.state_dict(models.fresh_model(config, rngs=nnx.Rngs(0)))
    else:
        state = bridge.state_dict(torch_ref.create_model(config))
    heads = {k: a for k, a in state.items() if not k.startswith("backbone.") and a.ndim == 4}
    assert len(heads) >= 10
    for key, weight in heads.items():
        fan_in, fan_out = weight[0].size, weight[:, 0].size
        expected = (3 * fan_in) ** -0.5 if config.head_init == "torch" else (2 / fan_out) ** 0.5
        if ".classifier." in key and config.head_init == "kaiming":
            expected = 0.01
        spread = 5 / np.sqrt(weight.size)
        assert abs(weight.mean()) <= spread * expected, key
        assert abs(weight.std() - expected) <= spread * expected, key
    biases = [a for k, a in state.items() if k.endswith("classifier.bias")]
    assert all(np.all(bias == 0) == (config.head_init == "kaiming") for bias in biases)
    assert len(biases) == (1 if name == "setr_mla_original" else 1 + len(config.aux_inputs))
