import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from flaxseg import models
from flaxseg.errors import ConfigError
from flaxseg.sharding import (
    FSDP,
    MIN_SHARDED,
    choose_devices,
    fsdp_spec,
    make_mesh,
    put_batch,
    state_sharding,
)
from flaxseg.training.optim import make_optimizer
from flaxseg.training.step import init_state


def test_batch_is_split_over_the_devices():
    batch = {"image": np.zeros((8, 4, 5, 3), np.uint8), "weight": np.arange(8)}
    placed = put_batch(batch, make_mesh())
    assert {shard.data.shape for shard in placed["image"].addressable_shards} == {(1, 4, 5, 3)}
    assert len(placed["image"].addressable_shards) == 8
    np.testing.assert_array_equal(placed["weight"], batch["weight"])


def test_devices_must_exist_and_share_the_batch():
    assert len(choose_devices(None, 16)) == 8
    assert len(choose_devices(3, 6)) == 3
    with pytest.raises(ConfigError, match=r"--devices is 9, but only 8 \(cpu\) are there"):
        choose_devices(9, 18)
    with pytest.raises(ConfigError, match="--batch-size is 6, which 8 devices cannot share"):
        choose_devices(None, 6)


def test_mesh_splits_the_batch_over_both_axes():
    mesh = make_mesh(fsdp=2)
    assert dict(mesh.shape) == {"data": 4, "fsdp": 2}
    placed = put_batch(np.arange(16), mesh)
    assert [shard.data.tolist() for shard in placed.addressable_shards][:2] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("shape", "parts", "spec"),
    [
        ((256, 1024), 8, P(None, FSDP)),  # the largest axis
        ((1024, 256), 8, P(FSDP)),
        ((512, 512), 8, P(None, FSDP)),  # the last of equals
        ((3, 3, 500, 512), 8, P(None, None, None, FSDP)),
        ((1001, 512), 8, P(None, FSDP)),  # the largest that can be divided
        ((1001, 513), 8, P()),
        ((MIN_SHARDED - 8,), 8, P()),
        ((MIN_SHARDED,), 8, P(FSDP)),
        ((256, 1024), 1, P()),
        ((), 8, P()),
    ],
)
def test_rule_takes_the_largest_axis_of_large_tensors(shape, parts, spec):
    assert fsdp_spec(shape, parts) == spec


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", ["setr", "segformer_b5"])
def test_state_of_large_networks_is_divided(name, optimizer):
    """Of parameters and optimiser state, a device of eight holds at most a seventh."""
    tx = make_optimizer(optimizer, 0.1, momentum=0.9, weight_decay=1e-4)
    model = models.abstract_model(models.get_config(name))
    state = jax.eval_shape(lambda: init_state(model, tx))
    sharding = state_sharding(state, make_mesh(fsdp=8))

    def held(part):
        leaves = zip(jax.tree.leaves(part(state)), jax.tree.leaves(part(sharding)), strict=True)
        sizes = [
            (leaf.size, np.prod(place.shard_shape(leaf.shape), dtype=int)) for leaf, place in leaves
        ]
        whole, own = np.sum(sizes, axis=0)
        return own / whole

    assert held(lambda s: s.params) <= 1 / 7
    assert held(lambda s: s.opt_state) <= 1 / 7


def test_split_of_devices_is_checked():
    with pytest.raises(ConfigError, match="--fsdp is 3, of 8 devices it can be 1, 2, 4, 8"):
        choose_devices(None, 8, fsdp=3)
    assert len(choose_devices(6, 6, fsdp=3)) == 6
