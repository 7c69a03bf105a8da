"""What belongs to no layer is left out by name; what may be one stays an error."""

import numpy as np
import pytest

import convert
from convert.load import read_native
from convert.parity.networks import small_config
from convert.parity.runs import random_state
from convert.strays import BESIDE, COUNTS
from flaxseg import models, native
from flaxseg.errors import CheckpointError

NETWORKS = {
    "huggingface": small_config("segformer_b0_hf"),
    "notebook": models.get_config("vitseg", width=24, depth=1, mlp_dim=24),
}


@pytest.fixture(scope="module", params=NETWORKS)
def published(request):
    config = NETWORKS[request.param]
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    layout = convert.load_format(request.param, models.architecture_of(config))
    return model, layout.export_state(model)


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


BESIDE_THE_NETWORK = {
    "criterion.weight": floats(5),
    "loss.pos_weight": floats(1),
    "losses.0.class_weights": floats(1, 5, 1, 1),
    "class_weights": floats(5),
    "pixel_mean": floats(3, 1, 1),
    "log_vars": floats(2),
    "temperature": floats(),
}


def with_counters(state) -> dict[str, np.ndarray]:
    modules = dict.fromkeys(key.rpartition(".")[0] for key in state)
    counted = {f"{m}.{n}": np.zeros(1) for m in modules for n in ("total_ops", "total_params")}
    counted |= {f"{module}.calls": np.array(3) for module in modules}
    return {**state, **counted, "total_ops": np.zeros(1), "n_averaged": np.array(4)}


def test_left_out_by_name(published, tmp_path):
    model, state = published
    convert.write(tmp_path / "x.pth", {**state, **BESIDE_THE_NETWORK})
    loaded = convert.load(tmp_path / "x.pth")
    left_out = loaded.report.left_out
    assert {k for k, why in left_out.items() if why == BESIDE} == BESIDE_THE_NETWORK.keys()
    assert all(key in str(loaded.report) for key in list(BESIDE_THE_NETWORK)[:1])
    after = native.state_dict(loaded.model)
    assert all(np.array_equal(after[k], a) for k, a in native.state_dict(model).items())
    convert.save(loaded, tmp_path / "back.pth", format=loaded.report.format)
    back = convert.read(tmp_path / "back.pth")
    assert list(back) == list(state)
    assert all(back[key].tobytes() == array.tobytes() for key, array in state.items())


@pytest.mark.parametrize("prefix", ["", "model.net."])
def test_counters_anywhere(published, prefix, tmp_path):
    model, state = published
    counted = {prefix + key: array for key, array in with_counters(state).items()}
    assert len(counted) > 2 * len(state)  # a profiler leaves more tensors than the network has
    convert.write(tmp_path / "x.pth", counted)
    arrays, report = read_native(tmp_path / "x.pth")
    assert all(np.array_equal(arrays[k], a) for k, a in native.state_dict(model).items())
    counts = [key for key, why in report.left_out.items() if why == COUNTS]
    assert len(counts) == len(counted) - len(state)


LAYERS = {
    "inside": lambda first: {f"{first}.ls1.gamma": floats(8)},
    "single": lambda first: {f"{first}.scale": floats(1)},
    "convolution": lambda first: {"extra.weight": floats(4, 4, 1, 1)},
    "linear": lambda first: {"projection": floats(4, 2)},
    "norm": lambda first: {"extra.norm.weight": floats(4), "extra.norm.bias": floats(4)},
    "plain norm": lambda first: {"extra.running_var": floats(4)},
    "with a layer": lambda first: {"extra.0.weight": floats(4, 4), "extra.1.scale": floats(4)},
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("prefix", ["", "net."])
def test_layers_stay_an_error(published, kind, prefix, tmp_path):
    _, state = published
    first = next(iter(state)).partition(".")[0]
    layers = LAYERS[kind](first)
    file = {prefix + key: array for key, array in {**state, **layers}.items()}
    convert.write(tmp_path / "x.pth", file)
    with pytest.raises(CheckpointError, match=f"{len(layers)} unexpected: ") as caught:
        convert.load(tmp_path / "x.pth")
    assert all(key in str(caught.value) for key in layers)


def test_no_tensor_is_a_stray_while_one_is_missing(published, tmp_path):
    _, state = published
    key = next(key for key in state if key.endswith("bias"))
    file = {k: a for k, a in state.items() if k != key} | {"lost.bias": state[key]}
    convert.write(tmp_path / "x.pth", file)
    with pytest.raises(CheckpointError, match=f"1 missing: {key}; 1 unexpected: lost.bias"):
        convert.load(tmp_path / "x.pth")


def test_strays_that_are_no_numbers_do_no_harm(published, tmp_path):
    _, state = published
    convert.write(tmp_path / "x.pth", {**state, "loss.best": np.float32(np.inf)[None]})
    assert "loss.best" in convert.load(tmp_path / "x.pth").report.left_out


def test_networks_that_keys_do_not_tell_apart_stay_ambiguous(tmp_path):
    config = small_config("segformer_b0")
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    state = convert.load_format("torch_ref", "segformer").export_state(model)
    convert.write(tmp_path / "x.pth", {**state, "criterion.weight": floats(5)})
    with pytest.raises(CheckpointError, match="--model says which one it is"):
        convert.load(tmp_path / "x.pth")
    name = "segformer_b0"
    assert "criterion.weight" in convert.load(tmp_path / "x.pth", model=name).report.left_out


def test_strays_beside_an_encoder(tmp_path):
    config = small_config("ccnet")
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    state = convert.load_format("torchvision", "resnet").export_state(model)
    file = {f"encoder.{key}": array for key, array in state.items()}
    convert.write(tmp_path / "x.pth", {**file, "criterion.weight": floats(5)})
    start = convert.start_from(str(tmp_path / "x.pth"), config)
    assert any("left out" in line and "criterion.weight" in line for line in start.lines)
    convert.write(tmp_path / "y.pth", {**file, "projector.weight": floats(5, 4)})
    with pytest.raises(CheckpointError, match="1 unexpected: projector.weight"):
        convert.start_from(str(tmp_path / "y.pth"), config)
