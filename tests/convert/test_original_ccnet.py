"""The authors' CCNet: its keys, its InPlaceABN weights, and that each of its choices matters."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn
from torch.nn import functional as F

import convert
import torch_ref
from convert import bridge
from convert.inplace_abn import inplace_weights
from convert.load import read_native
from convert.parity import figures
from convert.parity.networks import small_config
from convert.parity.runs import FlaxRun, TorchRun, random_state
from flaxseg import models, native
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.model_dir import COUNTER

NAME = "ccnet_r101_original"
ORIGINAL = convert.load_format("original", "ccnet")
TINY = models.get_config(
    NAME,
    num_classes=3,
    dropout=0.0,
    channels=8,
    aux_channels=8,
    **{"backbone.width": 2, "backbone.blocks": (1, 1, 2, 1), "backbone.stem_channels": (2, 2, 4)},
)
SIZE = (40, 47)
"""Its stem's map has an even and an odd side: only the even one is pooled to one row more."""


def conv(key: str, bias: bool = False) -> list[str]:
    return [f"{key}.weight", *([f"{key}.bias"] if bias else [])]


def norm(key: str) -> list[str]:
    leaves = ("weight", "bias", "running_mean", "running_var", COUNTER)
    return [f"{key}.{leaf}" for leaf in leaves]


def authors_keys() -> list[str]:
    """The state dict of the authors' network, in its order."""
    keys = [k for i in (1, 2, 3) for k in (*conv(f"conv{i}"), *norm(f"bn{i}"))]
    for layer, count in enumerate((3, 4, 23, 3), 1):
        for block in (f"layer{layer}.{b}" for b in range(count)):
            for i in (1, 2, 3):
                keys += [*conv(f"{block}.conv{i}"), *norm(f"{block}.bn{i}")]
            if block.endswith(".0"):
                keys += [*conv(f"{block}.downsample.0"), *norm(f"{block}.downsample.1")]
    keys += [*conv("head.conva.0"), *norm("head.conva.1"), "head.cca.gamma"]
    for part in ("query", "key", "value"):
        keys += conv(f"head.cca.{part}_conv", bias=True)
    keys += [*conv("head.convb.0"), *norm("head.convb.1")]
    for name, bias in (("head.bottleneck", False), ("dsn", True)):
        keys += [*conv(f"{name}.0", bias), *norm(f"{name}.1"), *conv(f"{name}.3", bias=True)]
    return keys


def test_keys_and_their_order_are_the_authors():
    table = ORIGINAL.table(models.abstract_model(models.get_config(NAME)))
    assert list(table.foreign_shapes) == authors_keys()
    assert table.foreign_shapes["conv3.weight"] == (128, 64, 3, 3)
    assert table.foreign_shapes["head.cca.gamma"] == (1,)
    assert table.foreign_shapes["dsn.0.bias"] == (512,)


@pytest.mark.parametrize("counters", [True, False])
def test_files_of_either_age_come_back_bit_for_bit(counters):
    state = random_state(TINY, 0)
    foreign = ORIGINAL.table(models.abstract_model(TINY)).to_foreign(state)
    if not counters:
        foreign = {key: a for key, a in foreign.items() if not key.endswith(COUNTER)}
    model = models.abstract_model(TINY)
    imported = ORIGINAL.import_state(foreign, model)
    back = ORIGINAL.export_state(model, imported.spares)
    assert all(back[key].tobytes() == array.tobytes() for key, array in foreign.items())
    assert {key for key in back if key not in foreign} == (
        set() if counters else {key for key in back if key.endswith(COUNTER)}
    )


def test_another_activation_is_refused_though_keys_fit():
    other = torch_ref.create_model(dataclasses.replace(TINY, aux_activation="relu"))
    with pytest.raises(CheckpointError, match="aux_activation is 'relu', there 'leaky_relu'"):
        ORIGINAL.export_state(other)


class InPlaceABN(nn.BatchNorm2d):
    """The scale of mapillary's layer."""

    def forward(self, x):
        scale = self.weight.abs() + self.eps
        return F.batch_norm(
            x, self.running_mean, self.running_var, scale, self.bias, self.training, eps=self.eps
        )


@pytest.fixture(scope="module")
def published() -> tuple[dict[str, np.ndarray], list[np.ndarray], np.ndarray]:
    """A state dict with InPlaceABN weights of both signs, its outputs, and the images."""
    model = torch_ref.create_model(TINY).double().eval()
    bridge.fill(model, random_state(TINY, 0))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for layer in norms:
            layer.weight[1::2] *= -1
            layer.weight[0] = 0
    foreign = ORIGINAL.export_state(model)
    for layer in norms:
        layer.__class__ = InPlaceABN
    images = np.random.default_rng(0).standard_normal((1, 3, *SIZE))
    with torch.inference_mode():
        output = model(torch.from_numpy(images), aux=True)
    return foreign, [x.numpy() for x in (output.logits, *output.aux)], images


def outputs_of(run, foreign, images) -> list[np.ndarray]:
    state = ORIGINAL.table(models.abstract_model(TINY)).to_native(foreign)
    return run(TINY, state, "float64").evaluate(images)


@pytest.mark.parametrize("run", [FlaxRun, TorchRun])
def test_plain_weights_compute_what_inplace_abn_did(published, run):
    foreign, expected, images = published
    plain = convert.plain_weights(foreign)
    assert figures.outputs_apart(outputs_of(run, plain, images), expected) <= 1e-10


def test_importing_alone_leaves_the_weights_as_they_are(published):
    foreign, expected, images = published
    assert figures.outputs_apart(outputs_of(TorchRun, foreign, images), expected) > 0.01


def test_eps_counts(published):
    foreign, expected, images = published
    plain = convert.plain_weights(foreign, eps=0.0)
    assert figures.outputs_apart(outputs_of(TorchRun, plain, images), expected) > 1e-8


def test_plain_weights_touch_the_scales_of_norms_alone():
    state = {
        "bn.weight": np.array([-2.0, 0.0, 3.0], np.float32),
        "bn.bias": np.array([-1.0, 0.0, 1.0], np.float32),
        "bn.running_var": np.ones(3, np.float32),
        "fc.weight": np.array([-1.0], np.float32),
        "bare.running_var": np.ones(3, np.float32),
    }
    plain = convert.plain_weights(state)
    assert plain["bn.weight"].dtype == np.float32
    expected = np.array([2, 0, 3], np.float32) + np.float32(1e-5)
    np.testing.assert_array_equal(plain["bn.weight"], expected)
    assert state["bn.weight"][0] == -2
    assert list(plain) == list(state)
    assert all(plain[key] is state[key] for key in state if key != "bn.weight")


def test_plain_weights_need_a_norm():
    with pytest.raises(CheckpointError, match="has no norm, which is a layer with a weight and"):
        convert.plain_weights({"fc.weight": np.ones(2, np.float32)})


@pytest.fixture
def file(published, tmp_path):
    """The authors' file."""
    foreign = {key: array.astype(np.float32) for key, array in published[0].items()}
    foreign = {k: a.astype(np.int64) if k.endswith(COUNTER) else a for k, a in foreign.items()}
    convert.write(tmp_path / "authors.pth", foreign)
    return tmp_path / "authors.pth", foreign


def scales(state, plain: bool) -> dict[str, np.ndarray]:
    return ORIGINAL.table(models.abstract_model(TINY)).to_native(
        state if plain else convert.plain_weights(state)
    )


@pytest.mark.parametrize("plain", [False, True])
def test_files_are_read_as_the_layout_means_them(file, plain, tmp_path):
    path, foreign = file
    loaded = convert.load(path, plain_norms=plain)
    said = loaded.report.notes if plain else loaded.report.assumed
    assert any(("norms are plain" if plain else "norms are InPlaceABN's") in line for line in said)
    after = native.state_dict(loaded.model)
    assert all(np.array_equal(after[k], a) for k, a in scales(foreign, plain).items())
    notes = convert.save(loaded, tmp_path / "back.pth", format="original")
    assert any("not stored: norms are plain" in note for note in notes) == plain
    back = convert.read(tmp_path / "back.pth")
    assert list(back) == list(foreign)
    assert all(back[key].tobytes() == array.tobytes() for key, array in foreign.items())
    convert.save(loaded, tmp_path / "other.pth", format="torch_ref")
    other = convert.read(tmp_path / "other.pth")
    assert all(np.array_equal(other[key], array) for key, array in after.items())


def test_a_training_starts_from_the_scales(file):
    path, foreign = file
    start = convert.start_from(str(path), TINY)
    assert all(np.array_equal(start.arrays[k], a) for k, a in scales(foreign, False).items())
    assert any("InPlaceABN" in line for line in start.lines)


def test_our_own_networks_come_back_from_the_layout(tmp_path):
    model = native.fill(models.abstract_model(TINY), random_state(TINY, 1))
    assert convert.save(model, tmp_path / "x.pth", format="original") == ()
    after = native.state_dict(convert.load(tmp_path / "x.pth").model)
    assert all(after[k].tobytes() == a.tobytes() for k, a in native.state_dict(model).items())
    for plain in (True, None):
        convert.save(model, tmp_path / "y.pth", format="original", plain_norms=plain)
        weights = convert.read(tmp_path / "y.pth")["bn1.weight"]
        same = np.array_equal(weights, native.state_dict(model)["backbone.stem.0.bn.weight"])
        assert same == bool(plain)


def test_a_trained_network_keeps_no_old_weights(file, tmp_path):
    loaded = convert.load(file[0])
    state = native.state_dict(loaded.model)
    state["head.fuse.bn.weight"] = state["head.fuse.bn.weight"] + np.float32(0.5)
    loaded = loaded._replace(model=native.fill(models.abstract_model(TINY), state))
    convert.save(loaded, tmp_path / "back.pth", format="original")
    back, before = convert.read(tmp_path / "back.pth"), file[1]
    key = "head.bottleneck.1.weight"
    np.testing.assert_array_equal(
        np.abs(back[key]) + np.float32(1e-5), state["head.fuse.bn.weight"]
    )
    assert all(back[k].tobytes() == a.tobytes() for k, a in before.items() if k != key)


def test_scales_that_the_layout_cannot_hold(tmp_path):
    state = random_state(TINY, 0)
    state["head.fuse.bn.weight"][3] = -0.5
    model = native.fill(models.abstract_model(TINY), state)
    with pytest.raises(
        CheckpointError, match=r"smaller scales than that: head\.bottleneck\.1\.weight;"
    ):
        convert.save(model, tmp_path / "x.pth", format="original")
    assert not (tmp_path / "x.pth").exists()
    notes = convert.save(model, tmp_path / "x.pth", format="original", plain_norms=True)
    assert len(notes) == 1 and "plain" in notes[0]


def test_norms_of_both_kinds(file):
    with pytest.raises(ConfigError, match="--inplace-abn and --plain-norms contradict"):
        convert.load(file[0], inplace_abn=True, plain_norms=True)


def test_other_layouts_have_plain_norms_unless_told(tmp_path):
    config = small_config("ccnet_r50")
    state = random_state(config, 0)
    state["head.fuse.bn.weight"][::2] *= -1
    model = native.fill(models.abstract_model(config), state)
    foreign = convert.load_format("mmseg", "ccnet").export_state(model)
    convert.write(tmp_path / "x.pth", foreign)
    key = "head.fuse.bn.weight"
    assert np.array_equal(read_native(tmp_path / "x.pth").arrays[key], state[key])
    loaded = convert.load(tmp_path / "x.pth", inplace_abn=True)
    expected = np.abs(state[key]) + np.float32(1e-5)
    np.testing.assert_array_equal(native.state_dict(loaded.model)[key], expected)
    convert.save(loaded, tmp_path / "back.pth", format="mmseg")
    back = convert.read(tmp_path / "back.pth")
    assert all(back[k].tobytes() == array.tobytes() for k, array in foreign.items())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_of_scales(dtype):
    rng = np.random.default_rng(0)
    eps = dtype(1e-5)
    weights = rng.standard_normal(20_000).astype(dtype) * dtype(10.0) ** rng.integers(-8, 3, 20_000)
    read = {"bn.running_var": weights, "bn.weight": weights.astype(dtype)}
    plain = convert.plain_weights(read)
    back = inplace_weights(plain)["bn.weight"]
    assert back.dtype == dtype and (back >= 0).all()
    assert (back + eps).tobytes() == plain["bn.weight"].tobytes()
    assert inplace_weights(plain, read)["bn.weight"].tobytes() == read["bn.weight"].tobytes()
    edge = {"bn.running_var": weights[:1], "bn.weight": np.array([eps])}
    assert inplace_weights(edge)["bn.weight"] == 0


MUTATIONS = [
    {"backbone.ceil_pool": False},
    {"backbone.first_dilations": (1, 1, 1, 2)},
    {"activation": "relu"},
    {"aux_activation": "relu"},
    {"align_corners": False},
]


@pytest.fixture(scope="module")
def case() -> figures.Case:
    return figures.make_case(TINY, SIZE, batches=1)


def test_the_unchanged_network_passes(case):
    assert figures.eval_figure(case.flax("float64"), case).passed


@pytest.mark.parametrize("changes", MUTATIONS, ids=lambda changes: next(iter(changes)))
def test_each_design_choice_matters(case, changes):
    other = models.override(TINY, changes)
    run = FlaxRun(other, case.state, "float64")
    assert not figures.eval_figure(run, case).passed


def flax_state(config) -> dict[str, np.ndarray]:
    return native.state_dict(models.fresh_model(config, rngs=nnx.Rngs(0)))


def torch_state(config) -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    return bridge.state_dict(torch_ref.create_model(config))


@pytest.mark.parametrize("fresh", [flax_state, torch_state])
def test_initialisation_is_torchs_default(fresh):
    stages = {"blocks": (1, 1, 1), "strides": (1, 2, 1), "dilations": (1, 1, 2)}
    backbone = {"width": 8, **stages, "first_dilations": (1, 1, 2)}
    sizes = {"num_classes": 40, "channels": 64, "aux_channels": 64, "backbone": backbone}
    state = fresh(models.get_config(NAME, **sizes))
    biases = []
    for key, array in state.items():
        bound = 1 / math.sqrt(math.prod(array.shape[1:]))
        if array.ndim > 1:
            assert abs(array).max() <= bound, key
            assert abs(array.std() / bound * math.sqrt(3) - 1) <= 5 / math.sqrt(array.size), key
        elif key == "head.cca.gamma" or key.endswith(("running_mean", "bn.bias", "bn3.bias")):
            assert not array.any(), key
        elif key.removesuffix("bias") + "running_var" not in state and key.endswith("bias"):
            inputs = math.prod(state[key.removesuffix("bias") + "weight"].shape[1:])
            biases.append(array * math.sqrt(inputs))
        elif not key.endswith("bias"):
            assert np.all(array == 1), key
    scaled = np.concatenate(biases)
    assert scaled.size == 2 * 8 + 64 + 40 + 64 + 40 and abs(scaled).max() <= 1
    assert abs(scaled.std() * math.sqrt(3) - 1) <= 5 * math.sqrt(0.4 / scaled.size)
