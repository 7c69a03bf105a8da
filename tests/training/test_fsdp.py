"""A run whose state is split over devices, without the loop."""

import jax
import numpy as np
import pytest
from flax import nnx

from flaxseg import models, native
from flaxseg.errors import CheckpointError
from flaxseg.sharding import FSDP, batch_axes
from flaxseg.training import make_config
from flaxseg.training.setup import Setup
from flaxseg.training.start import Start

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture
def setup():
    """Sets up a run on some devices; three of its tensors are large enough to be split."""

    def make(**fields):
        override = ("patch_size=8", "width=64", "depth=1", "mlp_dim=256")
        sizes = {"limit": 8, "batch_size": 8, "image_size": (16, 16), "eval_size": (16, 16)}
        return Setup.of(make_config("vitseg", override=override, **sizes, **fields))

    return make


def split_leaves(state):
    return [leaf for leaf in jax.tree.leaves(state) if not leaf.is_fully_replicated]


def test_state_is_born_split_and_equal(setup):
    split, alone = setup(fsdp=8), setup(devices=1)
    state = split.init()
    parts = split_leaves(state)
    assert len(parts) == 3 * 3  # the MLP's two matrices, the head's, and both moments of each
    assert all(8 * leaf.addressable_shards[0].data.size == leaf.size for leaf in parts)
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(alone.init()), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for leaf, expected in zip(
        jax.tree.leaves(state), jax.tree.leaves(split.abstract_state()), strict=True
    ):
        assert leaf.sharding == expected.sharding


def test_split_state_is_evaluated_and_predicts(setup):
    split, alone = setup(fsdp=4), setup(devices=1)
    assert batch_axes(split.mesh) == ("data", FSDP)
    results = []
    for run in (split, alone):
        state = run.init()
        found = run.evaluator(state.params, state.stats, run.datasets.val_batches, keep=[3])
        results.append((found.scores.matrix, found.predictions[3]))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_from_elsewhere_take_their_places(setup):
    run = setup(fsdp=8)
    model = models.create_model("vitseg", rngs=nnx.Rngs(5), **_fields(run.model_config))
    arrays = native.state_dict(model)
    del arrays["head.weight"]
    state = run.init(Start(arrays, []))
    assert len(split_leaves(state)) == 3 * 3
    found = native.state_dict(run.model(state))
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)
    rows = np.zeros((6 * 64, 64), bool)
    rows[64:128] = True
    wanted = np.where(rows, arrays["blocks.0.mlp.fc1.weight"][:1], found["head.weight"])
    given = np.where(rows, wanted, 7.0)
    state = run.init(Start({"head.weight": given}, [], known={"head.weight": rows}))
    assert len(split_leaves(state)) == 3 * 3
    np.testing.assert_array_equal(native.state_dict(run.model(state))["head.weight"], wanted)
    with pytest.raises(CheckpointError, match=r"1 unexpected: nothing; 1 of another shape: pos_em"):
        run.init(Start({"nothing": np.zeros(2), "pos_embed": np.zeros(3)}, []))


def _fields(config):
    names = ("patch_size", "width", "depth", "mlp_dim", "num_classes", "image_size")
    return {name: getattr(config, name) for name in names}
