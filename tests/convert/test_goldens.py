"""The published networks' own numbers, through the rename tables, in both frameworks."""

import dataclasses
from pathlib import Path

import golden_rule
import jax
import numpy as np
import pytest
import torch

import convert
import torch_ref
from convert.parity.runs import Batch, FlaxRun, TorchRun
from flaxseg import models, native

GOLDENS = Path(__file__).parents[1] / "goldens"
NOISE = 10


@dataclasses.dataclass(frozen=True)
class Golden:
    """A published network's key list and outputs."""

    case: str
    format: convert.Format
    config: models.Config
    shapes: dict[str, tuple[int, ...]]
    outputs: dict[str, np.ndarray]

    @property
    def image(self) -> np.ndarray:
        return golden_rule.image(int(self.outputs["image_seed"]), self.outputs["image_shape"])

    def native_state(self) -> dict[str, np.ndarray]:
        table = self.format.table(models.abstract_model(self.config))
        return table.to_native(golden_rule.weights(self.shapes))


def load_golden(case: str, format_: str, network: str) -> Golden:
    lines = (GOLDENS / f"{case}.keys.txt").read_text().splitlines()
    shapes = {key: tuple(map(int, dims)) for key, *dims in map(str.split, lines)}
    with np.load(GOLDENS / f"{case}.npz") as archive:
        outputs = dict(archive)
    config = models.get_config(network, num_classes=int(outputs["num_classes"]))
    return Golden(case, convert.load_format(format_), config, shapes, outputs)


CASES = {
    "tutorial_ccnet": ("tutorial", "ccnet"),
    "mmseg_ccnet_r50-d8": ("mmseg", "ccnet_r50"),
    "mmseg_ccnet_r101-d8": ("mmseg", "ccnet_r101"),
}


@pytest.fixture(scope="module", params=CASES)
def golden(request) -> Golden:
    return load_golden(request.param, *CASES[request.param])


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


def flax_outputs(golden: Golden) -> list[np.ndarray]:
    model = models.eval_view(
        native.fill(models.abstract_model(golden.config), golden.native_state())
    )
    resize = golden.config.upsample == "x8"
    out = jax.jit(lambda x: model(x, resize=resize, aux=True))(golden.image.transpose(0, 2, 3, 1))
    return [np.asarray(x).transpose(0, 3, 1, 2) for x in (out.logits, *out.aux)]


def torch_outputs(golden: Golden) -> list[np.ndarray]:
    run = TorchRun(golden.config, golden.native_state(), "float32")
    resize = golden.config.upsample == "x8"
    with torch.inference_mode():
        out = run.model.eval()(torch.from_numpy(golden.image), resize=resize, aux=True)
    return [x.numpy() for x in (out.logits, *out.aux)]


@pytest.mark.parametrize("outputs_of", [flax_outputs, torch_outputs])
def test_forward(golden, outputs_of):
    expected = golden.outputs
    logits, *aux = outputs_of(golden)
    np.testing.assert_array_equal(logits.argmax(1), expected["argmax"])
    if "rows" in expected:
        logits = logits[:, :, expected["rows"]][..., expected["cols"]]
    assert np.abs(logits - expected["logits"]).max() <= NOISE * expected["logits_noise"]
    assert len(aux) == ("aux" in expected)
    for scores in aux:
        assert np.abs(scores - expected["aux"]).max() <= NOISE * expected["aux_noise"]


@pytest.mark.parametrize("run", [FlaxRun, TorchRun])
def test_training_step(run):
    golden = load_golden("tutorial_ccnet", *CASES["tutorial_ccnet"])
    with np.load(GOLDENS / "tutorial_ccnet.train.npz") as archive:
        expected = dict(archive)
    count, _, height, width = expected["image_shape"]
    batch = Batch(
        golden_rule.image(int(expected["image_seed"]), expected["image_shape"]),
        golden_rule.labels(int(expected["labels_seed"]), 33, (count, height, width)),
        (),
    )
    step = run(golden.config, golden.native_state(), "float64").step(batch)
    table = golden.format.table(models.abstract_model(golden.config))
    names = {k: n for link in table.links for n, k in zip(link.native, link.foreign, strict=True)}
    native_keys = [names[key] for key in golden.shapes if key in names]

    gradients = [step.gradients[key] for key in native_keys if key in step.gradients]
    statistics = [step.statistics[key] for key in native_keys if key in step.statistics]
    least = 1e-6 * expected["total_grad_norm"]
    np.testing.assert_allclose(step.loss, expected["loss"], rtol=1e-8)
    norms = np.array([np.linalg.norm(g) for g in gradients])
    scale = np.maximum(expected["grad_norm"], least)
    assert (np.abs(norms - expected["grad_norm"]) / scale).max() <= 1e-8
    for gradient, head, unit in zip(gradients, expected["grad_head"], scale, strict=True):
        kept = head[~np.isnan(head)]
        assert np.abs(gradient.ravel()[: kept.size] - kept).max() <= 1e-8 * unit
    running = [np.linalg.norm(s) for s in statistics]
    np.testing.assert_allclose(running, expected["running_norm"], rtol=1e-8)


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
