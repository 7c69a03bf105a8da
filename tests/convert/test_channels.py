"""Images of other than three channels: a clear refusal, and all the rest for --init."""

import numpy as np
import pytest

import convert
from convert.channels import FIRST_LAYERS
from convert.parity.networks import small_config
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.errors import CheckpointError

VARIANTS = ("bisenetv2", "bisenetv2_matmul", "bisenetv2_mmseg", "bisenetv2_coincheung")
VARIANTS += (
    "ccnet",
    "ccnet_r50",
    "ccnet_r101_original",
    "segformer_b0",
    "setr",
    "setr_mla",
    "vitseg",
)


@pytest.mark.parametrize("name", VARIANTS)
def test_first_layers_exist(name):
    config = small_config(name)
    leaves = native.leaves(models.abstract_model(config))
    firsts = {key for key in FIRST_LAYERS[models.architecture_of(config)] if key in leaves}
    assert firsts == {
        key
        for key, shape in leaves.items()
        if (len(shape) == 4 and shape[1] == 3) or (len(shape) == 1 and shape[0] == 3)
    }


VIT = {"width": 128, "num_heads": 2}
CASES = {
    "mmseg": ("ccnet", small_config("ccnet_r50")),
    "huggingface": ("segformer", small_config("segformer_b0_hf")),
    "notebook": ("vitseg", models.get_config("vitseg", width=24, depth=1, mlp_dim=24)),
    "tutorial": ("ccnet", small_config("ccnet")),
    "nvlabs": ("mit", small_config("segformer_b1")),
    "timm": ("vitseg", models.override(small_config("vitseg"), VIT)),
}
WHOLE = ("mmseg", "huggingface", "notebook", "tutorial")


def with_channels(state, table, architecture: str, channels: int) -> dict[str, np.ndarray]:
    """The file of a network for other images, and the native keys of its first layer."""
    firsts = [link for link in table.links if link.native.keys() & FIRST_LAYERS[architecture]]
    changed = dict(state)
    for key in (key for link in firsts for key in link.foreign):
        axis = min(1, state[key].ndim - 1)
        shape = list(state[key].shape)
        shape[axis] = shape[axis] * channels // 3
        changed[key] = np.ones(shape, np.float32)
    return changed


@pytest.mark.parametrize("channels", [1, 4, 13])
@pytest.mark.parametrize("origin", CASES)
def test_other_images(origin, channels, tmp_path):
    layout_of, config = CASES[origin]
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    layout = convert.load_format(origin, layout_of)
    architecture = models.architecture_of(config)
    state = layout.export_state(model)
    table = layout.table(models.abstract_model(config))
    file = with_channels(state, table, architecture, channels)
    convert.write(tmp_path / "x.pth", {f"net.{key}": array for key, array in file.items()})
    if origin in WHOLE:
        both = f"takes {channels} channels, flaxseg's networks take 3"
        with pytest.raises(CheckpointError, match=f"{both}: train.py --init starts"):
            convert.load(tmp_path / "x.pth")
    start = convert.start_from(str(tmp_path / "x.pth"), config)
    expected = native.state_dict(model)
    assert all(np.array_equal(a, expected[key]) for key, a in start.arrays.items())
    fresh = expected.keys() - start.arrays.keys()
    firsts = {k for k in FIRST_LAYERS[architecture] if k in expected and layout.covers(k)}
    head = {key for key in expected if not layout.covers(key)}
    assert fresh == firsts | head
    text = "\n".join(start.lines)
    assert f"takes {channels} channels, this network 3" in text
    assert all(key in text.split("random numbers in")[1] for key in firsts)


def test_what_else_does_not_fit_stays_an_error(tmp_path):
    config = small_config("ccnet_r50")
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    layout = convert.load_format("mmseg", "ccnet")
    state = layout.export_state(model)
    file = with_channels(state, layout.table(model), "ccnet", 4)
    file["decode_head.convs.0.conv.weight"] = np.ones((2, 2, 3, 3), np.float32)
    convert.write(tmp_path / "x.pth", file)
    with pytest.raises(
        CheckpointError, match=r"decode_head\.convs\.0\.conv\.weight: \(2, 2, 3, 3\)"
    ):
        convert.start_from(str(tmp_path / "x.pth"), config)
