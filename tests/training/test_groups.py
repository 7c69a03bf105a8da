import functools
import math

import pytest

from flaxseg import native
from flaxseg.errors import ConfigError
from flaxseg.models import abstract_model, get_config
from flaxseg.training import make_config
from flaxseg.training.optim import Factors, make_rules, match
from flaxseg.training.optim.configured import configured_table
from flaxseg.training.optim.groups import KINDS

VIT = {"backbone.depth": 4, "backbone.out_indices": (0, 1, 2, 3)}
SMALL = {
    "ccnet_r50": {"backbone.blocks": (1, 1, 1, 1)},
    "setr_naive": VIT,
    "setr_mla": VIT,
    "segformer_b0": {},
    "bisenetv2_coincheung": {"backbone.semantic_layers": (1, 1, 1)},
    "vitseg": {"depth": 2},
}


@functools.cache
def shapes(name):
    """Native key -> shape of the parameters of a network."""
    leaves = native.leaves(abstract_model(get_config(name, **SMALL[name])))
    return {key: shape for key, shape in leaves.items() if "running_" not in key}


@pytest.mark.parametrize("name", SMALL)
def test_what_does_not_decay_is_what_has_one_axis_or_tells_the_place(name):
    factors = match(make_rules((), no_decay=[*KINDS]))
    for key, shape in shapes(name).items():
        place = key.endswith(("pos_embed", "cls_token"))
        assert factors(key).decay == float(len(shape) > 1 and not place), key


def test_layer_norms_are_not_batch_norms():
    factors = match(make_rules((), no_decay=["layer_norm"]))
    free = {key for key in shapes("segformer_b0") if not factors(key).decay}
    assert "backbone.stages.0.blocks.0.norm1.weight" in free
    assert "backbone.stages.3.patch_embed.norm.bias" in free
    assert "head.fuse.bn.weight" not in free
    assert "backbone.stages.0.blocks.0.attn.q.bias" not in free


def test_heads_learn_faster():
    factors = match(make_rules((), head_lr=10.0))
    for name in ("ccnet_r50", "setr_mla", "bisenetv2_coincheung"):
        for key in shapes(name):
            first = key.partition(".")[0]
            assert factors(key).lr == (10.0 if first in ("head", "aux_head", "aux_heads") else 1.0)


def test_layer_decay_of_a_plain_transformer():
    keys = [
        "backbone.pos_embed", "backbone.patch_embed.proj.weight",
        *(f"backbone.blocks.{i}.attn.qkv.weight" for i in range(12)), "head.norm.weight",
    ]  # fmt: skip
    factors = match(make_rules(keys, layer_decay=0.5, head_lr=3.0))
    assert factors("backbone.pos_embed") == factors(keys[1]) == Factors(0.5**13, 1.0)
    assert factors("backbone.blocks.0.norm1.weight").lr == 0.5**12
    assert factors("backbone.blocks.1.norm1.weight").lr == 0.5**11
    assert factors("backbone.blocks.11.mlp.fc1.bias").lr == 0.5
    assert factors("head.norm.weight").lr == 3.0
    assert factors("neck.norms.0.weight").lr == 1.0


def test_layer_decay_of_a_pyramid_counts_through_its_stages():
    keys = shapes("segformer_b0")  # 2 blocks in each of 4 stages
    factors = match(make_rules(keys, layer_decay=0.5))
    assert factors("backbone.stages.0.patch_embed.proj.weight").lr == 0.5**8
    assert factors("backbone.stages.0.blocks.1.attn.norm.weight").lr == 0.5**7
    assert factors("backbone.stages.0.norm.weight").lr == 0.5**7
    assert factors("backbone.stages.1.patch_embed.norm.weight").lr == 0.5**6
    assert factors("backbone.stages.3.norm.bias").lr == 0.5
    assert all(factors(key).lr < 1 for key in keys if key.startswith("backbone."))


def test_layer_decay_needs_a_transformer():
    with pytest.raises(ConfigError, match="--layer-decay is 0.9, but this network's encoder is no"):
        make_rules(shapes("ccnet_r50"), layer_decay=0.9)


def test_table_counts_every_parameter():
    model = abstract_model(get_config("vitseg", depth=2))
    config = make_config("vitseg", "shapes", head_lr=10.0, no_decay=("position",))
    table = configured_table(config, model)
    rows = list(zip(*(column._cells for column in table.columns), strict=True))
    assert [row[0] for row in rows] == ["position", "heads", "others"]
    assert rows[0][1:] == ("1", "49,152", "1", "0")
    total = sum(math.prod(s) for k, s in native.leaves(model).items() if "running_" not in k)
    assert sum(int(row[2].replace(",", "")) for row in rows) == total
