"""The example format of CONTRIBUTING.md does what the text says."""

import re
from pathlib import Path

import numpy as np
import pytest

from convert.parity.networks import small_config
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.errors import CheckpointError

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()


def test_the_example_converts_both_ways():
    names: dict = {}
    exec(re.findall("```python\n(.*?)```", TEXT, re.DOTALL)[0], names)
    layout = names["FORMAT"]
    config = small_config("vitseg")
    state = random_state(config, 0)
    foreign = layout.export_state(native.fill(models.abstract_model(config), state))
    assert foreign["layer2.k.weight"].shape == (24, 24) and foreign["fc.weight"].shape == (10, 24)
    assert list(foreign)[:5] == [
        "bn.weight",
        "bn.bias",
        "bn.running_mean",
        "bn.running_var",
        "bn.num_batches_tracked",
    ]
    model = models.abstract_model(config)
    imported = layout.import_state(foreign, model)
    assert imported.left_out["fc.weight"] == "classifies photos; never called"
    found = native.state_dict(model)
    assert all(np.array_equal(found[key], array) for key, array in state.items())
    del foreign["stem.bias"]
    with pytest.raises(CheckpointError, match="1 missing: stem.bias"):
        layout.import_state(foreign, models.abstract_model(config))
