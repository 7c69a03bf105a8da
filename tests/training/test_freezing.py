"""Weights that a training leaves as they are."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from flaxseg import models
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.training import make_config
from flaxseg.training.flops import count_flops
from flaxseg.training.freezing import Frozen, weight_sizes
from flaxseg.training.optim.configured import configured_table
from flaxseg.training.optim.groups import key_of
from flaxseg.training.program import trace_step
from flaxseg.training.resuming import check_identity
from flaxseg.training.setup import Setup

pytestmark = pytest.mark.usefixtures("compiled_once")

SMALL = {
    "bisenetv2_coincheung": {"backbone.semantic_layers": (1, 1, 1)},
    "ccnet_r50": {"backbone.blocks": (1, 1, 1, 1)},
    "segformer_b0": {},
    "setr_mla": {"backbone.depth": 4, "backbone.out_indices": (0, 1, 2, 3)},
    "vitseg": {"depth": 12},
}


@functools.cache
def network(name):
    return models.abstract_model(models.get_config(name, **SMALL[name]))


@pytest.mark.parametrize("name", SMALL)
def test_encoder_is_all_before_neck_and_heads(name):
    model = network(name)
    learning = weight_sizes(model).keys() - Frozen.of(("encoder",), model).keys
    assert {key.partition(".")[0] for key in learning} <= {"neck", "head", "aux_head", "aux_heads"}
    assert all(key.startswith(("neck.", "head.", "aux_head")) for key in learning)


@pytest.mark.parametrize(
    ("pattern", "starts"),
    [
        ("blocks.1", ("blocks.1.",)),  # and not blocks.10
        ("blocks.[01]", ("blocks.0.", "blocks.1.")),
        ("attn.qkv", tuple(f"blocks.{i}.attn.qkv." for i in range(12))),
        ("pos_embed|head", ("pos_embed", "head.")),
    ],
)
def test_patterns_are_whole_parts_of_names(pattern, starts):
    model = network("vitseg")
    wanted = {key for key in weight_sizes(model) if key.startswith(starts)}
    assert Frozen.of((pattern,), model).keys == wanted


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("head", "block.1"), r"--freeze block.1 names no weight; did you mean blocks\.1"),
        (("running_mean",), "names no weight; parts: blocks, head, input_norm, patch_embed"),
        (("encoder", "head"), "--freeze encoder head leaves no weight to train"),
    ],
)
def test_names_that_do_not_fit(patterns, message):
    with pytest.raises(ConfigError, match=message):
        Frozen.of(patterns, network("vitseg"))


def test_what_is_no_pattern():
    with pytest.raises(ConfigError, match=r"--freeze \*\.bias is no regular expression \(noth"):
        make_config(freeze=("*.bias",))


def test_only_what_is_frozen_as_a_whole_is_in_eval_mode():
    model = network("segformer_b0")
    view = Frozen.of(("head.fuse", r"backbone.stages.[01]", "head.classifier"), model).view(model)
    modes = {
        ".".join(map(str, path)): getattr(module, name)
        for path, module in nnx.iter_modules(view)
        for name in ("deterministic", "use_running_average")
        if hasattr(module, name)
    }
    assert modes.pop("head.fuse.bn") is True
    assert modes.pop("head.dropout") is False  # of a head that learns in part
    assert len(modes) == 8
    for path, still in modes.items():
        assert still == path.startswith(("backbone.stages.0.", "backbone.stages.1.")), path


def batch(setup):
    size = (setup.config.batch_size, *setup.config.image_size)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    return image, rng.integers(0, setup.model_config.num_classes, size, dtype=np.uint8)


def trained(setup, steps):
    """The states before and after some steps, on the host."""
    state = setup.init()
    before, (image, label) = jax.device_get(state), batch(setup)
    for _ in range(steps):
        state, _ = setup.program(state, image, label)
    return before, jax.device_get(state)


def by_key(tree):
    return {key_of(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


SPLIT = ("patch_size=8", "width=64", "depth=1", "mlp_dim=256", "dropout=0.0")
"""A network of which three tensors are large enough to be split over devices."""


def test_twenty_steps_leave_the_encoder_alone(tiny_run):
    fields = {"freeze": ("encoder",), "ema": 0.9, "weight_decay": 0.1, "optimizer": "adamw"}
    fields |= {"override": SPLIT, "image_size": (16, 16), "devices": 4, "fsdp": 4, "accumulate": 2}
    setup = Setup.of(tiny_run(**fields))
    split = [leaf for leaf in jax.tree.leaves(setup.sharding) if not leaf.is_fully_replicated]
    assert len(split) == 3 + 3 + 2  # of the weights, their averages, and the head's two moments
    before, after = trained(setup, 20)
    heads = ("head.bias", "head.weight")
    for trees in ("params", "average"):
        old, new = (by_key(getattr(state, trees)) for state in (before, after))
        moved = {key for key in old if not np.array_equal(old[key], new[key])}
        assert len(old) > 15 and {key.removeprefix("0.") for key in moved} == {*heads}
    # The norm of the encoder keeps its statistics.
    for old, new in zip(*map(jax.tree.leaves, (before.stats, after.stats)), strict=True):
        np.testing.assert_array_equal(old, new)
    kept = [key_of(path) for path, leaf in jax.tree.leaves_with_path(after.opt_state) if leaf.ndim]
    assert sorted(kept) == ["0.head.bias"] * 2 + ["0.head.weight"] * 2  # Adam's two moments
    whole = Setup.of(tiny_run(**fields | {"freeze": ()}))
    sizes = {"batch_size": 8, "image_size": (16, 16)}

    def flops(setup):
        traced = trace_step(setup.train_step, setup.abstract_state(), setup.mesh, **sizes)
        return count_flops(traced, traced.lower(), "cpu")

    assert 0 < flops(setup) < 0.7 * flops(whole)
    assert "frozen: 17 of 19 tensors" in setup.frozen.told(after.params)[0]


def test_what_is_frozen_outlives_no_checkpoint(tiny_run, tmp_path):
    there, here = (
        Setup.of(tiny_run(freeze=freeze, allow_changes=True)).identity()
        for freeze in ((), ("patch_embed",))
    )
    with pytest.raises(CheckpointError, match=r"frozen was None, now patch_embed.proj.bias patch_"):
        check_identity(tmp_path, there, here)
    del there["frozen"]  # as in older checkpoints
    check_identity(tmp_path, there, {**there, "frozen": None})


def test_random_numbers_are_not_frozen_in_silence():
    frozen = Frozen(frozenset("abcde"))
    (line,) = frozen.warn({"b": 0})
    assert line.startswith("4 tensors are frozen at random numbers") and line.endswith(
        ": a, c, d, ..."
    )
    assert frozen.warn("abcdef") == Frozen().warn(()) == []


def test_table_of_groups():
    config = make_config("vitseg", "shapes", head_lr=10.0, no_decay=(), freeze=("encoder",))
    table = configured_table(config, network("vitseg"))
    rows = list(zip(*(column._cells for column in table.columns), strict=True))
    assert [row[0] for row in rows][-2:] == ["others", "frozen"]
    assert rows[-1][3:] == ("0", "0")
    total = sum(weight_sizes(network("vitseg")).values())
    assert sum(int(row[2].replace(",", "")) for row in rows) == total
