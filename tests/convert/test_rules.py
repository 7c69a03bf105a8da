"""The rule engine on small made-up networks."""

import re

import numpy as np
import pytest

from convert.changes import SCALAR, Cut, Reshape, Twins
from convert.rules import Extra, build_table, rename, under, where
from convert.templates import Template
from flaxseg.errors import CheckpointError


def arrays(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}


def check_round_trip(rules, leaves, **kwargs):
    table = build_table(rules, leaves, **kwargs)
    before = arrays(leaves)
    foreign = table.to_foreign(before)
    assert {k: a.shape for k, a in foreign.items()} == table.foreign_shapes
    after = table.to_native(foreign)
    assert after.keys() == before.keys()
    for key in before:
        assert after[key].shape == before[key].shape
        assert after[key].tobytes() == before[key].tobytes()
    return foreign


def test_fields_shift_and_scale():
    template = Template("layer{s+1}.{3*i+1}.{-1*i+3}.*")
    assert template.fill({"s": 0, "i": 2, "*": "bias"}) == "layer1.7.1.bias"


@pytest.mark.parametrize("key", ["a.x.b.weight", "a.1.b.weight.c", "axb.1.weight", "a.01.b.weight"])
def test_templates_match_whole_keys_only(key):
    assert Template("a.{i}.b.*").match("a.1.b.weight") == {"i": 1, "*": "weight"}
    assert Template("a.{i}.b.*").match(key) is None


def test_a_field_used_twice_must_agree():
    assert Template("a.{i}.{i}").match("a.2.2") == {"i": 2}
    assert Template("a.{i}.{i}").match("a.2.3") is None


def test_native_templates_take_plain_fields():
    with pytest.raises(ValueError, match=re.escape("write {i+1} as {i}")):
        Template("a.{i+1}").match("a.2")


def test_order_is_the_peers_whatever_the_leaves_order():
    rules = (
        Extra("cls", "unused", lambda leaves: (2,)),
        rename("blocks.{b}.conv{i}.weight", "layer{b+1}.conv{i}.weight"),
        rename("blocks.{b}.bn{i}.*", "layer{b+1}.bn{i}.*"),
        rename("blocks.{b}.down.weight", "layer{b+1}.down.0.weight"),
    )
    leaves = {
        f"blocks.{b}.{name}": (1,)
        for b in (1, 10, 0)
        for name in ("down.weight", "conv2.weight", "bn1.running_var", "bn1.weight", "conv1.weight")
    }
    block = ("conv1.weight", "bn1.weight", "bn1.running_var", "bn1.num_batches_tracked")
    block += ("conv2.weight", "down.0.weight")
    expected = ["cls", *(f"layer{b}.{name}" for b in (1, 2, 11) for name in block)]
    assert list(build_table(rules, leaves).order) == expected


def test_a_single_value_changes_shape():
    foreign = check_round_trip([rename("gamma", "gate.scale", SCALAR)], {"gamma": (1,)})
    assert foreign["gate.scale"].shape == ()


def test_a_linear_layer_stored_as_a_convolution():
    rule = rename("fc.weight", "fc.weight", Reshape(lambda shape: (*shape, 1, 1)))
    assert check_round_trip([rule], {"fc.weight": (3, 4)})["fc.weight"].shape == (3, 4, 1, 1)


def test_fused_here_split_there():
    rule = rename("attn.{i}.qkv.*", [f"layer.{{i}}.{n}.*" for n in "qkv"], Cut())
    leaves = {"attn.0.qkv.weight": (6, 4), "attn.0.qkv.bias": (6,)}
    foreign = check_round_trip([rule], leaves)
    np.testing.assert_array_equal(
        foreign["layer.0.k.weight"], arrays(leaves)["attn.0.qkv.weight"][2:4]
    )


def test_split_here_fused_there_with_unequal_pieces():
    rule = rename(["q.*", "kv.*"], "in_proj_*", Cut())
    foreign = check_round_trip([rule], {"q.weight": (2, 3), "kv.weight": (4, 3)})
    assert foreign["in_proj_weight"].shape == (6, 3)


def test_twins_are_written_twice_and_must_agree():
    table = build_table([rename("head.*", ["a.*", "b.*"], Twins())], {"head.weight": (2,)})
    foreign = table.to_foreign({"head.weight": np.ones(2, np.float32)})
    assert list(foreign) == ["a.weight", "b.weight"]
    with pytest.raises(CheckpointError, match=r"a\.weight, b\.weight: .* one tensor"):
        table.to_native({**foreign, "b.weight": np.zeros(2, np.float32)})


def test_extras_come_back_as_kept_or_as_zeros():
    table = build_table(
        [
            rename("a.*", "x.*"),
            Extra("fc.weight", "unused", lambda leaves: (5, *leaves["a.weight"])),
        ],
        {"a.weight": (2,), "a.running_var": (2,)},
    )
    native = {"a.weight": np.ones(2, np.float32), "a.running_var": np.ones(2, np.float32)}
    fresh = table.to_foreign(native)
    assert list(fresh) == ["x.weight", "x.running_var", "x.num_batches_tracked", "fc.weight"]
    assert fresh["fc.weight"].shape == (5, 2) and not fresh["fc.weight"].any()
    assert fresh["x.num_batches_tracked"].dtype == np.int64
    kept = {"fc.weight": np.full((5, 2), 7, np.float32)}
    assert table.to_foreign(native, kept)["fc.weight"] is kept["fc.weight"]
    without = {key: fresh[key] for key in ("x.weight", "x.running_var")}
    assert table.to_native(without).keys() == native.keys()


def test_under_moves_the_foreign_side():
    rules = under("net.", [rename("a", "b"), Extra("fc", "unused", lambda leaves: (1,))])
    assert build_table(rules, {"a": (1,)}).order == ("net.b", "net.fc")


def test_no_counters_where_the_peer_has_none():
    table = build_table([rename("a.*", "x.*")], {"a.running_var": (1,)}, counters=False)
    assert table.order == ("x.running_var",)


def test_a_key_without_a_rule_is_named():
    with pytest.raises(CheckpointError, match=r"exactly one rule: b\.weight is taken by no rule"):
        build_table([rename("a.*", "x.*")], {"a.weight": (1,), "b.weight": (1,)})


def test_a_key_with_two_rules_names_both():
    rules = [rename("a.*", "x.*"), rename("a.weight", "y.weight")]
    message = r"a\.weight is taken by a\.\* <-> x\.\*; a\.weight <-> y\.weight"
    with pytest.raises(CheckpointError, match=message):
        build_table(rules, {"a.weight": (1,)})


def test_two_keys_with_one_foreign_name():
    with pytest.raises(CheckpointError, match=r"two tensors .* stored as x\.weight"):
        build_table(
            [rename("a.*", "x.*"), rename("b.*", "x.*")], {"a.weight": (1,), "b.weight": (1,)}
        )


def test_a_group_must_be_whole():
    with pytest.raises(CheckpointError, match=r"needs kv\.weight, which the network lacks"):
        build_table([rename(["q.*", "kv.*"], "in_proj_*", Cut())], {"q.weight": (2, 3)})


def test_templates_of_a_rule_share_their_fields():
    with pytest.raises(ValueError, match=r"a\.\{i\} <-> b do not share their fields"):
        rename("a.{i}", "b")


def test_a_plain_rule_joins_one_with_one():
    with pytest.raises(ValueError, match="the rule has 1 and 2"):
        build_table([rename("a", ["b", "c"])], {"a": (2,)})


def test_pieces_must_be_equal():
    with pytest.raises(ValueError, match="length 5 on axis 0 does not cut into 2 pieces"):
        build_table([rename("a", ["b", "c"], Cut())], {"a": (5,)})


def test_all_that_does_not_fit_is_in_one_error():
    table = build_table([rename("a.*", "x.*")], {"a.weight": (2, 3), "a.bias": (2,)})
    foreign = {"x.weight": np.zeros((3, 2), np.float32), "x.bais": np.zeros(2, np.float32)}
    with pytest.raises(CheckpointError) as caught:
        table.to_native(foreign)
    for part in ("1 missing: x.bias", "x.bais (near x.bias)", "x.weight: (3, 2), expected (2, 3)"):
        assert part in str(caught.value)


def test_rules_for_some_networks_alone():
    rules = (
        *where([rename("out.*", "conv_1.*")], lacking="deep.weight"),
        *where([rename("out.*", "conv_4.*")], having="deep.weight"),
        rename("deep.weight", "deep"),
        *where([Extra("bias", "unused", lambda leaves: (1,))], lacking=("out.bias", "deep.weight")),
    )
    shallow = build_table(rules, {"out.weight": (1,)})
    assert list(shallow.order) == ["conv_1.weight", "bias"]
    deep = build_table(rules, {"out.weight": (1,), "deep.weight": (1,)})
    assert list(deep.order) == ["conv_4.weight", "deep"]
    with_bias = build_table(rules, {"out.bias": (1,)})
    assert list(with_bias.order) == ["conv_1.bias"]
