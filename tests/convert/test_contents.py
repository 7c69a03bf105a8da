"""Sets of tensors are found wherever they are, and one is chosen only where that is plain."""

import pytest
import torch

import convert
from convert.io import read_content
from flaxseg.errors import CheckpointError


def state(number: int = 0) -> dict[str, torch.Tensor]:
    return {"a.weight": torch.full((2, 3), float(number)), "a.bias": torch.ones(2)}


def adam() -> dict:
    moments = {
        "step": torch.tensor(3.0),
        "exp_avg": torch.ones(2, 3),
        "exp_avg_sq": torch.ones(2, 3),
    }
    return {"state": {0: moments, 1: moments}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}


def read(tmp_path, content, **options):
    torch.save(content, tmp_path / "x.pth")
    return read_content(tmp_path / "x.pth", **options)


def number(content) -> float:
    return float(torch.as_tensor(content.arrays["a.weight"].__array__())[0, 0])


@pytest.mark.parametrize(
    ("content", "wrappers"),
    [
        (state(), ()),
        ({"model_state_dict": state(), "optimizer_state_dict": adam()}, ("model_state_dict",)),
        ({"net": state(), "optim": adam(), "acc": 93.1}, ("net",)),
        ({"weights": state(), "scaler": {"scale": torch.ones(1, 1)}}, ("weights",)),
        ({"module": state(), "optimizer": None, "client_state": {"step": 3}}, ("module",)),
        ({"state_dict_ema": state(), "epoch": 3}, ("state_dict_ema",)),
        ({"ema": {"module": state(), "decay": 0.99}}, ("ema", "module")),
        ({"model": {"state_dict": state()}, "trainer": adam()}, ("model", "state_dict")),
        ((3, state(), adam()), ("1",)),
        ({"a": [{"b": state()}]}, ("a", "0", "b")),
        # A score and class weights lie loose beside the weights.
        ({"state_dict": state(), "best_acc1": torch.tensor(71.2)}, ("state_dict",)),
        ({"net": state(), "class_weights": {"road": torch.ones(3)}}, ("net",)),
        (
            {
                "state_dict": state(),
                "callbacks": {"Best": {"best_k": {"a.ckpt": torch.tensor(0.5)}}},
            },
            ("state_dict",),
        ),
        ({"state_dict": state(), "any_name": {"0": adam()["state"][0]}}, ("state_dict",)),
        ({"state_dict": state(), "criterion": {"weight": torch.ones(3, 3)}}, ("state_dict",)),
    ],
)
def test_the_set_is_found_wherever_it_is(tmp_path, content, wrappers):
    found = read(tmp_path, content)
    assert (found.wrappers, found.others) == (wrappers, ())
    assert list(found.arrays) == list(state())


@pytest.mark.parametrize(
    "other",
    *[
        [
            "ema_state_dict",
            "model_ema",
            "modelEMA",
            "swa_model",
            "teacher",
            "target_net",
            "averaged",
        ]
    ],
)
def test_an_average_beside_the_weights_is_named(tmp_path, other):
    content = {other: state(2), "network": state(1)}
    found = read(tmp_path, content)
    assert (found.wrappers, found.others, number(found)) == (("network",), (other,), 1)
    found = read(tmp_path, content, weights=other)
    assert (found.wrappers, found.others, number(found)) == ((other,), ("network",), 2)


def test_names_are_paths(tmp_path):
    content = {"student": state(1), "ema": {"module": state(2)}, "optimizer": adam()}
    assert read(tmp_path, content).others == ("ema.module",)
    assert number(read(tmp_path, content, weights="ema.module")) == 2


@pytest.mark.parametrize("key", ["semantic", "schema", "remaining", "optional_net"])
def test_words_are_whole(tmp_path, key):
    assert number(read(tmp_path, {key: state(1), "ema": state(2)})) == 1


@pytest.mark.parametrize(
    ("content", "listed"),
    [
        (
            {"encoder": state(), "decoder": state(1)},
            r"encoder \(2 tensors\), decoder \(2 tensors\)",
        ),
        ({"ema": state(), "swa": state(1)}, r"ema \(2 tensors\), swa"),
        ([state(), state(1)], r"0 \(2 tensors\), 1 \(2 tensors\)"),
        ({**state(), "inner": state(1)}, r"\. \(2 tensors\), inner \(2 tensors\)"),
    ],
)
def test_several_plain_sets_are_listed(tmp_path, content, listed):
    with pytest.raises(
        CheckpointError, match=rf"x\.pth holds several .*{listed}.*--weights"
    ) as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value)


def test_a_wrong_name_lists_the_right_ones(tmp_path):
    with pytest.raises(CheckpointError, match=r"no set of tensors 'mean', but net \(2 t.*, ema \("):
        read(tmp_path, {"net": state(), "ema": state(1)}, weights="mean")
    convert.write(tmp_path / "x.safetensors", {"a": state()["a.bias"].numpy()})
    with pytest.raises(CheckpointError, match="one set of tensors: leave --weights ema out"):
        read_content(tmp_path / "x.safetensors", weights="ema")


def test_one_dict_under_two_names_is_one_set(tmp_path):
    same = state(3)
    found = read(tmp_path, {"model": same, "state_dict": same})
    assert (found.wrappers, found.others, number(found)) == (("model",), ("state_dict",), 3)


def test_meta_on_the_way(tmp_path):
    meta = {"CLASSES": ("a", "b"), "PALETTE": [[0, 0, 0], [1, 1, 1]]}
    found = read(tmp_path, {"meta": meta, "model": {"meta": {"epoch": 3}, "state_dict": state()}})
    assert found.meta == {**meta, "epoch": 3}


def test_an_optimiser_alone(tmp_path):
    for content in (adam(), {"optimizer": adam(), "epoch": 3}, {"optim_state": adam()}):
        with pytest.raises(CheckpointError, match="state of an optimiser and no weights"):
            read(tmp_path, content)


class Trainer:
    def __init__(self, net):
        self.net = net


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
        (
            {"model": torch.nn.Sequential(torch.nn.Linear(2, 2)), "epoch": 3},
            r"container\.Sequential",
        ),
        ({"optimizer": adam(), "ema": Trainer(torch.nn.Linear(2, 2))}, r"test_contents\.Trainer"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_modules_are_refused(tmp_path, content, name, zipped):
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=rf"pickled .*{name}.*running code.*state_dict\(\)"):
        read_content(tmp_path / "x.pth")


def test_a_module_beside_weights_does_not_stop_the_read(tmp_path):
    assert number(read(tmp_path, {"model": torch.nn.Linear(2, 2), "state_dict": state(1)})) == 1
