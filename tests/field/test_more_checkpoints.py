"""What stands around weights: other programs' and people's habits of each kind."""

import collections
import datetime
import enum
import io
import os
import pathlib
import pickle
import random
import re
import zipfile

import numpy as np
import pytest
import torch
from checkpoint_maker import Checkpoints, compressed, halved, narrow, prefixed
from safetensors.torch import save

import convert
from convert.__main__ import main
from flaxseg import native
from flaxseg.errors import CheckpointError

FIRST = "segformer.encoder.patch_embeddings.0.proj.weight"


# Where the weights stand


@pytest.mark.parametrize("path", ["network", "weights", "ema module", "checkpoint model"])
def test_one_set_wherever_it_is(checkpoints: Checkpoints, path):
    content = checkpoints.tensors
    for entry in reversed(path.split()):
        content = {"epoch": 3, entry: content}
    checkpoints.loads(content)


@pytest.mark.parametrize("average", ["model_ema", "ema"])
def test_the_plain_weights_beside_an_average(checkpoints: Checkpoints, average):
    """As timm, and Baidu's RT-DETR with {"ema": {"module": ...}}, write them."""
    other = halved(checkpoints.tensors)
    other = {"module": other, "updates": 9} if average == "ema" else other
    content = {average: other, "model": checkpoints.tensors, "optimizer": {"state": {}}}
    checkpoints.loads(content, says=[average])


def test_the_average_of_mmengine(checkpoints: Checkpoints):
    other = prefixed("module.", halved(checkpoints.tensors))
    ema = {"steps": torch.tensor(8), **other}
    content = {"meta": {}, "state_dict": checkpoints.tensors, "ema_state_dict": ema}
    checkpoints.loads(content, says=["ema_state_dict"])


def test_student_and_teacher(checkpoints: Checkpoints):
    content = {"student": checkpoints.tensors, "teacher": halved(checkpoints.tensors)}
    checkpoints.loads(content, says=["teacher"])


def test_student_and_teacher_by_prefix(checkpoints: Checkpoints):
    student = prefixed("student.", checkpoints.tensors)
    teacher = prefixed("teacher.", halved(checkpoints.tensors))
    checkpoints.loads({"state_dict": teacher | student}, says=["teacher"])


def test_an_average_by_prefix(checkpoints: Checkpoints):
    """A Lightning module that keeps its average as a second network."""
    plain = prefixed("net.", checkpoints.tensors)
    average = prefixed("net_ema.", halved(checkpoints.tensors))
    checkpoints.loads({"state_dict": average | plain}, "last.ckpt", says=["net_ema"])


def test_the_optimiser_alone(checkpoints: Checkpoints, capsys):
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}
    content = {"optimizer_state_dict": {"state": moments, "param_groups": []}, "epoch": 1}
    checkpoints.refused(content, "optimiser", capsys=capsys)


# Prefixes


@pytest.mark.parametrize(
    "prefix",
    [
        "model._orig_mod.",
        "_orig_mod.module.",
        "student.",
        "module.model.net.",
    ],
)
def test_any_prefix_that_all_share(checkpoints: Checkpoints, prefix):
    checkpoints.loads({"state_dict": prefixed(prefix, checkpoints.tensors)}, says=[prefix])


@pytest.mark.parametrize(
    "wrapper", ["_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod."]
)
def test_wrappers_around_parts(checkpoints: Checkpoints, wrapper):
    """FSDP, activation checkpointing and torch.compile may wrap single parts of a network."""
    parts = ("encoder.", "linear_fuse.", "block.0.0.")
    tensors = {
        re.sub("|".join(map(re.escape, parts)), lambda part: part[0] + wrapper, key): tensor
        for key, tensor in checkpoints.tensors.items()
    }
    checkpoints.loads(tensors, says=[wrapper])


# Tensors of nobody's


def test_counters_of_thop_in_every_layer(checkpoints: Checkpoints):
    layers = {key.rpartition(".")[0] for key in checkpoints.tensors} | {"segformer"}
    counts = ("total_ops", "total_params")
    counters = {f"{layer}.{count}": torch.zeros(1) for layer in sorted(layers) for count in counts}
    content = {**checkpoints.tensors, **counters, "total_ops": torch.ones(1, dtype=torch.double)}
    checkpoints.loads(content, says=["total_ops"])


@pytest.mark.parametrize(
    "strays",
    [
        {"criterion.class_weight": torch.ones(3)},
        {"loss_fn.pos_weight": torch.tensor(2.0)},
        {"val_miou.confmat": torch.zeros(3, 3, dtype=torch.long)},
        {"pixel_mean": torch.ones(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)},
    ],
    ids=lambda strays: next(iter(strays)),
)
def test_strays_are_left_out_by_name(checkpoints: Checkpoints, strays):
    content = prefixed("model.", checkpoints.tensors) | strays
    checkpoints.loads({"state_dict": content}, "last.ckpt", says=list(strays))


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        ("auxiliary.0", {"weight": (8, 16, 3, 3), "bias": (8,)}),
        ("decode_head.extra", {"weight": (8, 8), "bias": (8,)}),
        (
            "segformer.encoder.last_norm",
            {"weight": (16,), "bias": (16,), "running_mean": (16,), "running_var": (16,)},
        ),
    ],
)
def test_a_layer_more_is_an_error(checkpoints: Checkpoints, layer, shapes, capsys):
    more = {f"{layer}.{name}": torch.ones(shape) for name, shape in shapes.items()}
    content = {**checkpoints.tensors, **more, "total_ops": torch.ones(1)}
    checkpoints.refused(content, f"{layer}.weight", capsys=capsys)


def test_a_layer_less_is_an_error(checkpoints: Checkpoints, capsys):
    key = "decode_head.linear_c.1.proj.weight"
    del checkpoints.tensors[key]
    content = {**checkpoints.tensors, "total_ops": torch.ones(1)}
    checkpoints.refused(content, key, capsys=capsys)


# Objects beside the tensors


class Phase(enum.Enum):
    TRAIN = 1


def test_objects_that_python_and_numpy_have(checkpoints: Checkpoints):
    content = {
        "state_dict": checkpoints.tensors,
        "date": datetime.datetime(2026, 1, 2, 3, 4),
        "out": pathlib.Path("runs/1"),
        "phase": Phase.TRAIN,
        "scores": collections.defaultdict(list, miou=[np.float32(0.5)]),
        "random": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "device": torch.device("cpu"),
    }
    checkpoints.loads(content)


def test_settings_of_other_programs(checkpoints: Checkpoints):
    make = checkpoints.strangers.make
    content = {
        "state_dict": prefixed("model.", checkpoints.tensors),
        "hyper_parameters": make("omegaconf.dictconfig", "DictConfig", _content={"lr": 0.1}),
        "config": make("__main__", "Config", out=pathlib.Path("runs"), step=np.int64(3)),
        "lr_schedulers": [make("our.schedules", "Poly", power=0.9)],
    }
    checkpoints.loads(content, "last.ckpt")


def test_class_names_beside_a_strangers_settings(checkpoints: Checkpoints):
    config = checkpoints.strangers.make("mmcv.utils.config", "ConfigDict", lr=0.1)
    names = ("sky", "road", "tree")
    content = {"meta": {"CLASSES": names, "config": config}, "state_dict": checkpoints.tensors}
    checkpoints.loads(content, classes=names)


def test_arrays_in_a_plain_pickle(checkpoints: Checkpoints):
    """As Detectron2's model zoo has them."""
    arrays = {key: tensor.numpy() for key, tensor in checkpoints.tensors.items()}
    content = {"model": arrays, "__author__": "somebody", "matching_heuristics": True}
    checkpoints.loads(pickle.dumps(content), "model.pkl")


def test_parameters_in_an_ordered_dict(checkpoints: Checkpoints):
    tensors = collections.OrderedDict()
    for key, tensor in checkpoints.tensors.items():
        floating = tensor.is_floating_point()
        tensors[key] = torch.nn.Parameter(tensor) if floating else tensor
    checkpoints.loads({"model": tensors})


@pytest.mark.parametrize("inside", ["", "model"])
def test_a_pickled_module(checkpoints: Checkpoints, inside, capsys):
    """Ultralytics keeps the module itself under "model"."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1))
    content = {inside: module, "epoch": 1} if inside else module
    checkpoints.refused(content, "state_dict", capsys=capsys)


class Hostile:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("writer", ["torch", "legacy torch", "pickle"])
@pytest.mark.parametrize("door", ["os", "exec", "open"])
def test_nothing_hostile_is_called(checkpoints: Checkpoints, writer, door, tmp_path):
    """Whether the tensors beside it are read or the file is refused: the call is not made."""
    marker = tmp_path / "called"
    hostile = {
        "os": Hostile(os.system, f"touch {marker}"),
        "exec": Hostile(exec, f"open({str(marker)!r}, 'w')"),
        "open": Hostile(open, str(marker), "w"),
    }[door]
    content = {"state_dict": checkpoints.tensors, "args": hostile}
    if writer == "pickle":
        (tmp_path / "x.pth").write_bytes(pickle.dumps(content))
    else:
        checkpoints.save(content, _use_new_zipfile_serialization=writer == "torch")
    try:
        convert.read(tmp_path / "x.pth")
    except CheckpointError as error:
        assert "x.pth" in str(error) and "\n" not in str(error)
    assert not marker.exists()


# What a file is, whatever its name


@pytest.mark.parametrize("name", ["weights.pkl", "model.pt.1"])
def test_torch_files_of_the_old_form(checkpoints: Checkpoints, name):
    content = {"state_dict": checkpoints.tensors}
    path = checkpoints.save(content, name, _use_new_zipfile_serialization=False)
    checkpoints.loads(path.read_bytes(), name)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "no_ending"])
def test_safetensors_under_other_names(checkpoints: Checkpoints, name):
    checkpoints.loads(save(checkpoints.tensors), name)


def test_a_torch_file_called_safetensors(checkpoints: Checkpoints):
    checkpoints.loads(checkpoints.tensors, "model.safetensors")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 15001\n"


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("x.pth", b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "HTML"),
        ("model.safetensors", b"<html><head><title>404</title></head></html>", "HTML"),
        ("x.pth", POINTER, "LFS"),
        ("model.safetensors", POINTER, "LFS"),
        ("x.pth", b"", "empty"),
        ("x.pth.gz", compressed({"state_dict": {"a": torch.ones(2)}}), "gzip"),
        ("x.pth", b'{"error": "Invalid username or password."}', "JSON"),
    ],
    ids=["page", "page 2", "pointer", "pointer 2", "nothing", "gzip", "answer"],
)
def test_files_that_hold_something_else(checkpoints: Checkpoints, name, content, word, capsys):
    checkpoints.refused(content, word, name=name, capsys=capsys)


def test_torchscript(checkpoints: Checkpoints, capsys):
    """torch.jit.save packs code and weights."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/code/__torch__.py", "class Net(Module): pass")
        archive.writestr("x/constants.pkl", pickle.dumps(()))
        archive.writestr("x/data.pkl", pickle.dumps(()))
        archive.writestr("x/version", "3\n")
    checkpoints.refused(buffer.getvalue(), "TorchScript", capsys=capsys)


# One output, and other numbers of channels


@pytest.mark.parametrize(
    ("layout", "name"),
    [("nvlabs", "segformer_b0"), ("mmseg", "segformer_b0_mmseg")],
)
def test_one_output_in_other_layouts(tmp_path, layout, name):
    one = narrow(num_classes=1, name=name)
    convert.save(one, tmp_path / "one.pth", format=layout)
    loaded = convert.load(tmp_path / "one.pth")
    _assert_two_classes(native.state_dict(loaded.model), native.state_dict(one))
    assert re.search("one output|single output|sigmoid", str(loaded.report))


def test_one_output_in_safetensors(tmp_path, capsys):
    one = narrow(num_classes=1)
    convert.save(one, tmp_path / "one.safetensors", format="huggingface")
    command = ["import", str(tmp_path / "one.safetensors"), str(tmp_path / "out"), "--no-verify"]
    assert main(command) == 0
    assert "2 classes" in capsys.readouterr().out
    two = native.state_dict(native.load(tmp_path / "out"))
    _assert_two_classes(two, native.state_dict(one))


def _assert_two_classes(two, one):
    """Every classifier gives 0 and what it gave before; all else is the same."""
    assert two.keys() == one.keys()
    grown = [key for key in one if one[key].shape != two[key].shape]
    assert grown
    for key in one:
        if key in grown:
            expected = np.concatenate((np.zeros_like(one[key]), one[key]))
        else:
            expected = one[key]
        np.testing.assert_array_equal(two[key], expected, key)


@pytest.mark.parametrize("channels", [1, 6, 13])
def test_other_numbers_of_channels(checkpoints: Checkpoints, channels, capsys):
    kernel = checkpoints.tensors[FIRST]
    content = {**checkpoints.tensors, FIRST: kernel[:, :1].repeat(1, channels, 1, 1)}
    checkpoints.refused({"state_dict": content}, str(channels), "channel", "3", capsys=capsys)
