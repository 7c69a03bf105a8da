import numpy as np
import pytest

from flaxseg.errors import ConfigError
from flaxseg.sharding import choose_devices, make_mesh, put_batch


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
