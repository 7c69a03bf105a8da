"""The published networks' own numbers, through the rename tables, in both frameworks."""

from types import SimpleNamespace

import pytest
import torch

import convert
import torch_ref
from convert.parity import golden_rule, goldens
from convert.parity.runs import FlaxRun, TorchRun
from flaxseg import models

RUNS = [FlaxRun, TorchRun]


@pytest.fixture(scope="module", params=goldens.CASES)
def golden(request) -> goldens.Golden:
    return goldens.load_golden(request.param)


def check(measured, count: int):
    measured = list(measured)
    assert [figure for figure in measured if not figure.passed] == []
    assert len(measured) == count


def test_keys_order_and_shapes_are_the_peers(golden):
    table = golden.format.table(models.abstract_model(golden.config))
    assert list(table.foreign_shapes.items()) == list(golden.shapes.items())


def test_round_trip_returns_every_bit(golden):
    foreign = golden_rule.weights(golden.shapes)
    model = models.abstract_model(golden.config)
    imported = golden.format.import_state(foreign, model)
    exported = golden.format.export_state(model, imported.spares)
    assert list(exported) == list(foreign)
    for key, array in foreign.items():
        assert exported[key].dtype == array.dtype and exported[key].shape == array.shape, key
        assert exported[key].tobytes() == array.tobytes(), key


@pytest.mark.parametrize("run", RUNS)
def test_forward(golden, run):
    check(goldens.forward_figures(golden, run), 3 if golden.config.aux_channels else 2)


@pytest.mark.parametrize("golden", ["mmseg_ccnet_r50-d8"], indirect=True)
@pytest.mark.parametrize("wrong", ["logits", "aux"])
def test_a_wrong_output_is_noticed(golden, wrong):
    outputs = {name: golden.outputs[name].copy() for name in ("logits", "aux")}
    outputs[wrong].flat[-1] += 11 * golden.outputs[f"{wrong}_noise"]
    run = SimpleNamespace(evaluate=lambda image, resize: list(outputs.values()))
    measured = goldens.forward_figures(golden, lambda *args: run)
    failed = [figure.what for figure in measured if not figure.passed]
    assert failed == [f"golden, eval: {wrong}, absolute"]


@pytest.mark.parametrize("golden", [goldens.TRAINED], indirect=True)
@pytest.mark.parametrize("run", RUNS)
def test_training_step(golden, run):
    check(goldens.training_figures(golden, run), 3)


def test_the_plain_encoder_takes_torchvision_files(tmp_path):
    config = models.get_config("ccnet", num_classes=3, **{"backbone.blocks": (1, 1, 1, 1)})
    source = torch_ref.create_model(config)
    format_ = convert.load_format("torchvision")
    convert.write(tmp_path / "resnet.pth", format_.export_state(source))
    target = torch_ref.create_model(config)
    head = target.head.fuse.conv.weight.detach().clone()
    imported = format_.import_state(convert.read(tmp_path / "resnet.pth"), target)
    assert imported.left_out["fc.weight"] == "classifies ImageNet"
    torch.testing.assert_close(target.head.fuse.conv.weight, head, rtol=0, atol=0)
    for key, value in source.backbone.state_dict().items():
        torch.testing.assert_close(target.backbone.state_dict()[key], value, rtol=0, atol=0)
