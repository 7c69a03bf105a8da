"""The published networks' own numbers, through the rename tables, in both frameworks."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import convert
import torch_ref
from convert.load import read_native
from convert.parity import goldens
from convert.parity.figures import Figure
from convert.parity.runs import FlaxRun, TorchRun
from flaxseg import models

pytestmark = pytest.mark.usefixtures("compiled_once")  # several have the same program

LARGE = ("mmseg_setr_naive", "eps_mmseg_setr_naive", "fudan_setr_pup")
"""Half a minute each: `make parity` has these, and every network in Flax as well."""

CASES = {name: case for name, case in goldens.CASES.items() if name not in LARGE}
FIRST = {(case.origin, case.network.split("_")[0]): n for n, case in [*CASES.items()][::-1]}
OF_EACH_FORMAT = [name for name in CASES if name in FIRST.values()]
"""One network of each format: the others' tensors go through the same rules."""

SLOW = ("mmseg_setr_pup", "eps_tutorial_segformer_b0")
IN_FLAX = [
    name
    for name in CASES
    if (name in OF_EACH_FORMAT or name.startswith(("eps", "tutorial_bisenetv2")))
    and name not in SLOW
]
"""What differs in more than widths and depths; all are run in PyTorch, and the suite compares every
design with its twin."""

TRAINED_IN_FLAX = ("tutorial_ccnet", "tutorial_segformer_b0")

HINTS = {
    "tutorial_bisenetv2_fixed": {"model": "bisenetv2"},
    "tutorial_bisenetv2_fixed_sum": {"model": "bisenetv2"},
    "original_ccnet_r101": {"plain_norms": True},
}
"""What no file tells: the keys of `bisenetv2_matmul` are those of `bisenetv2`. The numbers of the
authors' CCNet fit plain norms: InPlaceABN is CUDA code, without which they were made."""

NOT_IN_THE_FILE = ("tutorial_bisenetv2_fixed",)
"""Even with the hint: its fusion is that of no variant."""


@pytest.fixture(scope="module", params=goldens.CASES)
def golden(request) -> goldens.Golden:
    return goldens.load_golden(request.param)


def check(measured: Iterable[Figure], count: int):
    measured = list(measured)
    assert [figure for figure in measured if not figure.passed] == []
    assert len(measured) == count


def test_keys_order_and_shapes_are_the_peers(golden):
    assert list(golden.table.foreign_shapes.items()) == list(golden.keys.shapes.items())


@pytest.fixture
def file(golden, tmp_path) -> Iterator[Path]:
    """The checkpoint as the peer would have written it."""
    path = tmp_path / "published.pth"
    convert.write(path, golden.weights, wrapper=golden.format.wrapper)
    yield path
    path.unlink()  # more than a gigabyte for some


@pytest.mark.parametrize(
    "golden", [name for name in OF_EACH_FORMAT if "_setr_" not in name], indirect=True
)
def test_a_file_comes_back_bit_for_bit(golden, file, tmp_path):
    loaded = convert.load(file, **HINTS.get(golden.name, {}))
    back = tmp_path / "back.pth"
    convert.save(loaded, back, format=golden.format.name)
    exported, foreign = convert.read(back), golden.weights
    back.unlink()
    assert list(exported) == list(foreign)
    for key, array in foreign.items():
        assert exported[key].dtype == array.dtype and exported[key].shape == array.shape, key
        assert exported[key].tobytes() == array.tobytes(), key


@pytest.mark.parametrize("golden", ["hf_segformer_b0", "coincheung_bisenetv2"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_of_a_parallel_run_is_read_exactly(golden, dtype, tmp_path):
    halves = {key: torch.from_numpy(array) for key, array in golden.weights.items()}
    halves = {k: t.to(dtype) if t.is_floating_point() else t for k, t in halves.items()}
    path = tmp_path / "half.pth"
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in halves.items()}}, path)
    arrays, report = read_native(path, **HINTS.get(golden.name, {}))
    path.unlink()
    expected = golden.table.to_native({key: t.float().numpy() for key, t in halves.items()})
    assert arrays.keys() == expected.keys()
    for key, array in expected.items():
        assert arrays[key].dtype == np.float32
        np.testing.assert_array_equal(arrays[key], array, err_msg=key)
    assert report.dtypes == (str(dtype).removeprefix("torch."),)


@pytest.mark.parametrize("golden", IN_FLAX, indirect=True)
def test_forward_in_flax_from_a_file(golden, file):
    arrays, report = read_native(file, **HINTS.get(golden.name, {}))
    if golden.name not in NOT_IN_THE_FILE:
        assert report.config == golden.config
    names = golden.outputs
    figures = goldens.eval_figures(golden, FlaxRun, arrays)
    check(figures, len(names) + ("logits" in names))


@pytest.mark.parametrize("golden", CASES, indirect=True)
def test_forward_in_torch(golden):
    names = golden.outputs
    check(goldens.eval_figures(golden, TorchRun), len(names) + ("logits" in names))


@pytest.mark.parametrize("golden", ["mmseg_ccnet_r50-d8"], indirect=True)
@pytest.mark.parametrize("wrong", ["logits", "aux0"])
def test_a_wrong_output_is_noticed(golden, wrong):
    network = FlaxRun(golden.config, golden.native_state, "float32")
    outputs = dict(zip(("logits", "aux0"), network.evaluate(golden.image, False), strict=True))
    outputs = {name: array.copy() for name, array in outputs.items()}
    row, column = (golden.record[f"{wrong}_{side}"][-1] for side in ("rows", "cols"))
    outputs[wrong][0, -1, row, column] += 12 * golden.record[f"{wrong}_noise"]
    run = SimpleNamespace(evaluate=lambda image, resize: list(outputs.values()))
    measured = goldens.eval_figures(golden, lambda *args: run)
    assert [figure.what for figure in measured if not figure.passed] == [wrong]


@pytest.mark.parametrize("golden", goldens.TRAINED, indirect=True)
def test_training_step_in_torch(golden):
    check(goldens.training_figures(golden, TorchRun), 3)


@pytest.mark.parametrize("golden", TRAINED_IN_FLAX, indirect=True)
def test_training_step_in_flax(golden):
    check(goldens.training_figures(golden, FlaxRun), 3)


def test_the_plain_encoder_takes_torchvision_files(tmp_path):
    config = models.get_config("ccnet", num_classes=3, **{"backbone.blocks": (1, 1, 1, 1)})
    source = torch_ref.create_model(config)
    format_ = convert.load_format("torchvision", "resnet")
    convert.write(tmp_path / "resnet.pth", format_.export_state(source))
    target = torch_ref.create_model(config)
    head = target.head.fuse.conv.weight.detach().clone()
    imported = format_.import_state(convert.read(tmp_path / "resnet.pth"), target)
    assert imported.left_out["fc.weight"] == "classifies ImageNet"
    torch.testing.assert_close(target.head.fuse.conv.weight, head, rtol=0, atol=0)
    for key, value in source.backbone.state_dict().items():
        torch.testing.assert_close(target.backbone.state_dict()[key], value, rtol=0, atol=0)
