"""The PyTorch references by themselves and beside flaxseg."""

import numpy as np
import pytest
import torch
from flax import nnx

import flaxseg
import torch_ref
from convert import bridge
from convert.parity.networks import small_config
from flaxseg import models, native
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.labels import LabelSet

SMALL = {"num_classes": 3, "backbone.width": 2, "backbone.blocks": (1, 1, 1, 1), "channels": 8}


def small(name="ccnet", **overrides):
    return torch_ref.create_model(name, **{**SMALL, **overrides})


@pytest.mark.parametrize(
    ("name", "size", "resized"),
    [("ccnet", (33, 47), (40, 48)), ("ccnet_r50", (33, 47), (33, 47)), ("ccnet", (8, 8), (8, 8))],
)
def test_output_sizes(name, size, resized):
    model = small(name).eval()
    images = torch.zeros(1, 3, *size)
    assert model(images).logits.shape == (1, 3, *resized)
    assert model(images, resize=False).logits.shape[2:] == tuple(-(-n // 8) for n in size)


def test_auxiliary_head_only_on_request():
    images = torch.zeros(1, 3, 17, 25)
    assert small("ccnet_r50").eval()(images).aux == ()
    (aux,) = small("ccnet_r50").eval()(images, aux=True).aux
    assert aux.shape == (1, 3, 17, 25)
    assert small("ccnet").eval()(images, aux=True).aux == ()


def test_float64():
    assert small().double().eval()(torch.zeros(1, 3, 9, 9).double()).logits.dtype == torch.float64


def test_criss_cross_attention_counts_each_pixel_of_the_cross_once():
    torch.manual_seed(0)
    cca = torch_ref.ccnet.CrissCrossAttention(8, 4).double()
    torch.nn.init.ones_(cca.gamma)
    x = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    query, key, value = (layer(x)[0] for layer in (cca.query, cca.key, cca.value))
    for h in range(3):
        for w in range(4):
            cross = {(i, w) for i in range(3)} | {(h, j) for j in range(4)}
            energies = torch.stack([query[:, h, w] @ key[:, i, j] for i, j in cross])
            values = torch.stack([value[:, i, j] for i, j in cross])
            expected = x[0, :, h, w] + energies.softmax(0) @ values
            torch.testing.assert_close(cca(x)[0, :, h, w], expected)


def test_fresh_attention_is_the_identity():
    x = torch.randn(1, 8, 3, 4)
    assert torch.equal(torch_ref.ccnet.CrissCrossAttention(8, 4)(x), x)


@pytest.mark.parametrize("name", ["ccnet", "ccnet_r50"])
def test_initialisation_has_the_same_moments(name):
    torch.manual_seed(0)
    sizes = {"num_classes": 40, "backbone.width": 16, "channels": 64}
    config = models.get_config(name, **sizes, **{"backbone.blocks": (1, 1, 1, 1)})
    ours = native.state_dict(models.fresh_model(config, rngs=nnx.Rngs(0)))
    theirs = bridge.state_dict(torch_ref.create_model(config))
    biases: tuple[list, list] = ([], [])
    for key, b in theirs.items():
        a = ours[key]
        if b.std() == 0:
            np.testing.assert_array_equal(a, b, err_msg=key)
        elif b.ndim == 1:
            biases[0].append(a)
            biases[1].append(b)
        else:
            # A ratio of two estimates from n values each errs by 1 / sqrt(n) at most (normal).
            assert abs(a.std() / b.std() - 1) <= 5 / np.sqrt(b.size), key
            assert abs(a.mean() - b.mean()) <= 5 * b.std() * np.sqrt(2 / b.size), key
    # All random biases stand behind 64 inputs: one uniform distribution, too few values each.
    a, b = (np.concatenate(side) for side in biases)
    assert a.size >= 80 and max(abs(a).max(), abs(b).max()) <= 1 / 8
    assert abs(a.std() / b.std() - 1) <= 5 * np.sqrt(0.4 / a.size)


def test_unknown_names():
    with pytest.raises(ConfigError, match="'ccnett'; did you mean ccnet"):
        torch_ref.create_model("ccnett")
    with pytest.raises(ConfigError, match="no field 'chanels'"):
        torch_ref.create_model("ccnet", chanels=3)


def test_configurations_are_taken_too():
    config = models.get_config("ccnet", **SMALL)
    assert torch_ref.create_model(config, num_classes=7).config.num_classes == 7


@pytest.mark.parametrize("name", ["bisenetv2", "ccnet_r50", "segformer", "setr", "vitseg"])
def test_directories_go_both_ways(tmp_path, name):
    config = small_config(name)
    labels = LabelSet.generic(config.num_classes)
    source = torch_ref.create_model(config)
    torch_ref.save(source, tmp_path / "torch", labels=labels)
    flax_model = flaxseg.load(tmp_path / "torch")
    flaxseg.save(flax_model, tmp_path / "flax", labels=labels)
    back = torch_ref.load(tmp_path / "flax")
    assert not back.training and back.config == source.config
    start, end = bridge.state_dict(source), bridge.state_dict(back)
    assert all(start[key].tobytes() == end[key].tobytes() for key in start)


def test_directories_keep_float64(tmp_path):
    torch_ref.save(small().double(), tmp_path / "m")
    assert torch_ref.load(tmp_path / "m").head.classifier.weight.dtype == torch.float64


def test_directories_that_do_not_fit(tmp_path):
    with pytest.raises(CheckpointError, match=r"none is no model directory"):
        torch_ref.load(tmp_path / "none")
    with pytest.raises(CheckpointError, match="4 classes, the model has 3"):
        torch_ref.save(small(), tmp_path / "m", labels=LabelSet.generic(4))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(CheckpointError, match="full exists and is no model directory"):
        torch_ref.save(small(), tmp_path / "full")
