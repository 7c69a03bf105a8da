"""Each kind of checkpoint once, as it was reported: loaded, with a word about it, or refused."""

import argparse
import re

import numpy as np
import pytest
import torch
from checkpoint_maker import Checkpoints, halved, narrow, prefixed
from flax import nnx
from jax import numpy as jnp

import convert
from flaxseg import models


def wrapped(kind: str, tensors):
    """As training programs wrap weights."""
    beside = {"epoch": 3, "optimizer_state_dict": {"state": {}}, "loss": 0.1}
    return {
        "pytorch": {**beside, "model_state_dict": tensors},
        "bisenet": {"net": tensors, "optimizer": {}, "iter": 1},
        "deepspeed": {"module": tensors, "buffer_names": [], "optimizer": None, "global_steps": 3},
        "average": {"epoch": 1, "state_dict_ema": tensors},
    }[kind]


@pytest.mark.parametrize("kind", ["pytorch", "bisenet", "deepspeed", "average"])
def test_wrappers(checkpoints: Checkpoints, kind):
    checkpoints.loads(wrapped(kind, checkpoints.tensors))


def test_weights_beside_their_average(checkpoints: Checkpoints):
    tensors = checkpoints.tensors
    content = {"state_dict": tensors, "ema_state_dict": halved(tensors)}
    checkpoints.loads(content, says=["ema_state_dict"])


def test_lightning(checkpoints: Checkpoints):
    tensors = {**prefixed("model.", checkpoints.tensors), "criterion.weight": torch.ones(3)}
    content = {
        "state_dict": tensors,
        "pytorch-lightning_version": "2.5.0",
        "hyper_parameters": {"lr": 1e-4},
    }
    checkpoints.loads(content, "last.ckpt", says=["model.", "criterion.weight"])


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_fsdp_wrapped_module."])
def test_prefixes(checkpoints: Checkpoints, prefix):
    checkpoints.loads(prefixed(prefix, checkpoints.tensors), says=[prefix])


def test_averaged_model(checkpoints: Checkpoints):
    tensors = {"n_averaged": torch.tensor(7), **prefixed("module.", checkpoints.tensors)}
    checkpoints.loads(tensors, says=["module.", "n_averaged"])


def test_namespace(checkpoints: Checkpoints):
    checkpoints.loads({"model": checkpoints.tensors, "args": argparse.Namespace(lr=0.1)})


def test_numpy_scalar(checkpoints: Checkpoints):
    checkpoints.loads({"state_dict": checkpoints.tensors, "best_miou": np.float64(0.7)})


def test_mmsegmentation(checkpoints: Checkpoints):
    history = checkpoints.strangers.make(
        "mmengine.logging.history_buffer",
        "HistoryBuffer",
        _log_history=np.array([0.7, 0.5]),
        _count_history=np.array([1, 1]),
    )
    content = {
        "meta": {"dataset_meta": {"classes": ("sky", "road", "tree")}},
        "state_dict": checkpoints.tensors,
        "message_hub": {"log_scalars": {"train/loss": history}},
    }
    checkpoints.loads(content, "iter_8.pth", classes=["sky", "road", "tree"])


@pytest.mark.parametrize("name", ["best.pth.tar", "UPPER.PTH", "without_ending"])
def test_names_of_files(checkpoints: Checkpoints, name):
    checkpoints.loads({"state_dict": checkpoints.tensors}, name)


def test_four_channels(checkpoints: Checkpoints, capsys):
    key = "segformer.encoder.patch_embeddings.0.proj.weight"
    wide = torch.cat([checkpoints.tensors[key], checkpoints.tensors[key][:, :1]], 1)
    checkpoints.refused({**checkpoints.tensors, key: wide}, "4 channels", "3", capsys=capsys)


@nnx.jit
def forward(model: models.Model, images):
    return model(images).logits


def test_one_output_for_two_classes(tmp_path):
    one = narrow(num_classes=1)
    convert.save(one, tmp_path / "one.pth", format="huggingface")
    images = jnp.asarray(np.random.default_rng(1).standard_normal((1, 32, 32, 3)), jnp.float32)
    loaded = convert.load(tmp_path / "one.pth")
    assert loaded.model.config.num_classes == 2
    assert re.search("one output|single output|sigmoid", str(loaded.report))
    logits = np.asarray(forward(loaded.model, images))
    np.testing.assert_array_equal(logits[..., 0], 0)
    z = np.asarray(forward(models.eval_view(one), images))[..., 0]
    np.testing.assert_allclose(logits[..., 1], z, atol=1e-6 * abs(z).max())
