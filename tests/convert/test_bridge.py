"""A whole model across, both ways."""

import jax
import numpy as np
import pytest
import torch

import torch_ref
from convert import bridge
from convert.parity.networks import COMPARISONS, small_config
from flaxseg import models, native
from flaxseg.errors import CheckpointError

SMALL = {"num_classes": 3, "backbone.width": 2, "backbone.blocks": (1, 1, 1, 1), "channels": 8}


DISTINCT = [name for name, comparison in COMPARISONS.items() if comparison.distinct]
"""The networks that differ from others in more than widths and depths."""


def pair(name, seed=0, **overrides):
    """Both networks, freshly initialised: quickly, the Flax one too with torch's draws."""
    config = models.override(small_config(name), overrides)
    torch.manual_seed(seed)
    draws = bridge.state_dict(torch_ref.create_model(config))
    return native.fill(models.abstract_model(config), draws), torch_ref.create_model(config)


@pytest.mark.parametrize("name", DISTINCT)
def test_both_sides_have_the_same_leaves(name):
    flax_model, torch_model = pair(name)
    assert bridge.leaves(torch_model) == native.leaves(flax_model)


@pytest.mark.parametrize("name", DISTINCT)
def test_round_trips_are_bit_equal(name):
    flax_model, torch_model = pair(name)
    start = bridge.state_dict(torch_model)
    counters = {k: v for k, v in torch_model.state_dict().items() if k.endswith("tracked")}
    bridge.from_torch(torch_model, flax_model)
    other = bridge.to_torch(flax_model, pair(name, seed=1)[1])
    end = bridge.state_dict(other)
    assert start.keys() == end.keys()
    assert all(start[key].tobytes() == end[key].tobytes() for key in start)
    assert counters.keys() == {k for k in other.state_dict() if k.endswith("tracked")}


def test_float64_keeps_its_bits():
    config = models.get_config("ccnet", **SMALL)
    torch_model = torch_ref.create_model(config).double()
    with jax.enable_x64(True):
        empty = models.abstract_model(config, dtype="float64", param_dtype="float64")
        arrays = native.state_dict(bridge.from_torch(torch_model, empty))
    for key, value in bridge.state_dict(torch_model).items():
        assert arrays[key].tobytes() == np.ascontiguousarray(value).tobytes(), key


def test_counters_stay_as_they_are():
    flax_model, torch_model = pair("ccnet")
    torch_model.backbone.stem[0].bn.num_batches_tracked.fill_(7)
    bridge.to_torch(flax_model, torch_model)
    assert torch_model.backbone.stem[0].bn.num_batches_tracked == 7


@pytest.mark.parametrize("to_torch", [True, False])
def test_a_mismatch_is_named_and_nothing_copied(to_torch):
    flax_model, torch_model = pair("ccnet")
    wider = pair("ccnet", num_classes=6)
    target = wider[1] if to_torch else wider[0]
    side = bridge if to_torch else native
    before = side.state_dict(target)
    with pytest.raises(CheckpointError, match=r"head\.classifier\.bias: \(5,\), expected \(6,\)"):
        if to_torch:
            bridge.to_torch(flax_model, target)
        else:
            bridge.from_torch(torch_model, target)
    after = side.state_dict(target)
    assert all(before[key].tobytes() == after[key].tobytes() for key in before)
