"""From each layout of a network to each other one and back: not a bit changes."""

import itertools

import numpy as np
import pytest

import convert
from convert.formats import FORMATS, TORCH_REF
from convert.load import read_native
from convert.parity.networks import COMPARISONS, small_config
from convert.parity.runs import random_state
from flaxseg import models, native

DISTINCT = [name for name, comparison in COMPARISONS.items() if comparison.distinct]


def layouts(config: models.Config) -> list[convert.Format]:
    """The formats that hold the whole network."""
    architecture = models.architecture_of(config)
    own = [f for f in (*FORMATS, *TORCH_REF) if f.architecture == architecture and f.variants]
    return [layout for layout in own if layout.stores(config)]


@pytest.mark.parametrize("name", DISTINCT)
def test_all_ordered_pairs(name, tmp_path):
    config = small_config(name)
    state = random_state(config, 0)
    found = layouts(config)
    assert found
    for a, b in itertools.product(found, repeat=2):
        arrays = state
        for layout in (a, b):
            table = layout.table(models.abstract_model(config))
            foreign = table.to_foreign(arrays)
            assert foreign.keys() == table.foreign_shapes.keys()
            arrays = table.to_native(foreign)
        assert all(arrays[key].tobytes() == array.tobytes() for key, array in state.items()), (a, b)


@pytest.mark.parametrize("name", ["segformer_b0_hf", "ccnet_r50"])
def test_through_files(name, tmp_path):
    config = small_config(name)
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    names = [layout.name for layout in layouts(config)]
    for a, b in itertools.product(names, repeat=2):
        for number, format in enumerate((a, b)):
            path = tmp_path / f"{a}-{b}-{number}.pth"
            convert.save(model, path, format=format)
            arrays, _ = read_native(path, format=format, model=name)
            model = native.fill(models.abstract_model(config), arrays)
        found = native.state_dict(model)
        expected = random_state(config, 0)
        assert all(np.array_equal(found[key], array) for key, array in expected.items()), (a, b)
