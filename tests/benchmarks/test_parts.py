"""`flaxseg info` counts what the table of networks counts."""

import pytest

from convert.parity.networks import COMPARISONS, small_config
from flaxseg.info import count_parts


@pytest.mark.parametrize("name", ["ccnet_r50", "setr_mla", "vitseg"])
def test_parts_add_up_to_the_counts_of_the_table_of_networks(name, load_benchmark):
    networks = load_benchmark("networks")
    config = small_config(name)
    size = config.fixed_size or COMPARISONS[name].sizes[0]
    parts = count_parts(config, size)
    assert sum(part.parameters for part in parts) == networks.parameters(config)
    assert parts.backbone.flops + parts.head.flops == networks.flops(config, size)
    assert all(part.parameters > 0 and part.flops > 0 for part in parts[:2])
    assert all(bool(number) == bool(config.aux_weights) for number in parts.auxiliary)
