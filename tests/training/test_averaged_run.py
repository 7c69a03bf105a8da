"""Runs that average their weights, divide their batches and keep their programs."""

import dataclasses
import gc

import jax
import numpy as np
import pytest

import convert
from flaxseg import native
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.training import blueprint, fit, loop
from flaxseg.training.checkpoints import Checkpoints
from flaxseg.training.compile_cache import keep_programs
from flaxseg.training.setup import Setup
from flaxseg.training.workdir import CHECKPOINTS


def saved(config):
    """The model directory's variables by native key."""
    return native.state_dict(native.load(config.directory / "model"))


def by_key(setup, params, stats):
    model = setup.model(dataclasses.replace(setup.abstract_state(), params=params, stats=stats))
    return native.state_dict(model)


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize(
    "fields",
    [
        {"ema": 0.7, "freeze": ("patch_embed",), "layer_decay": 0.9},
        {"swa_start": 1, "swa_lr": 0.01},
    ],
    ids=["ema", "swa"],
)
def test_average_is_evaluated_saved_and_resumed_bit_by_bit(
    fields, tiny_run, tmp_path, quiet, last_snapshot
):
    fields = {**fields, "accumulate": 2, "limit": 16, "eval_every": 3, "checkpoint_every": 60.0}
    whole = tiny_run(workdir=str(tmp_path / "whole"), **fields)
    parts = tiny_run(workdir=str(tmp_path / "parts"), **fields)
    assert fit(whole, quiet).finished
    fit(dataclasses.replace(parts, max_steps=5), quiet)  # amid the averaging
    assert fit(parts, quiet).finished

    state, other = last_snapshot(whole).state, last_snapshot(parts).state
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("metrics.csv", "model/model.safetensors"):
        assert (whole.directory / name).read_bytes() == (parts.directory / name).read_bytes()

    # Both weights are in the checkpoint; the average alone is in the model.
    setup = Setup.of(whole)
    averages, plain = by_key(setup, *state.average), by_key(setup, state.params, state.stats)
    model = saved(whole)
    weights = [key for key in model if "running_" not in key]
    assert all(np.array_equal(model[key], averages[key]) for key in weights)
    unlike = {key for key in weights if not np.array_equal(model[key], plain[key])}
    assert unlike and unlike.isdisjoint(setup.frozen.keys)
    frozen = "frozen: 2 of 19 tensors" in quiet.export_text()
    assert frozen == bool(setup.frozen.keys) == ("freeze" in fields)
    # EMA averages the statistics, too; SWA takes them anew from the training images.
    same = [np.array_equal(model[k], averages[k]) for k in model if "running_" in k]
    assert all(same) if "ema" in fields else not any(same)

    # A run that starts from this one starts from the average.
    start = convert.start_from(str(whole.directory), setup.model_config)
    assert start.arrays.keys() == model.keys() and not start.known
    assert all(np.array_equal(start.arrays[key], model[key]) for key in model)
    flag = "--ema 0.7" if "ema" in fields else "--swa-start 1"
    assert f"its weights with the best score, averaged by {flag}" in start.lines


def test_state_without_average_holds_none(tiny_run):
    plain, averaged = (Setup.of(tiny_run(ema=ema)).abstract_state() for ema in (None, 0.9))
    assert plain.average is None
    weights = jax.tree.leaves((plain.params, plain.stats))
    assert len(jax.tree.leaves(averaged)) == len(jax.tree.leaves(plain)) + len(weights)


def test_checkpoint_without_average_is_not_taken_for_one(tiny_run, tmp_path):
    setups = [Setup.of(tiny_run(ema=ema)) for ema in (None, 0.9)]
    folder = tmp_path / CHECKPOINTS
    with Checkpoints(folder, setups[0].identity()) as checkpoints:
        state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), setups[0].abstract_state())
        checkpoints.save(1, state, {}, loop.History())
    with Checkpoints(folder, setups[1].identity()) as checkpoints:
        with pytest.raises(CheckpointError, match="average was None, now Ema"):
            checkpoints.restore(setups[1].abstract_state(), pytest.fail)


def test_parts_must_be_shared_by_the_devices(tiny_run):
    with pytest.raises(
        ConfigError,
        match="which 8 devices cannot share equally in 2 parts: make",
    ):
        Setup.of(tiny_run(devices=8, accumulate=2))


class Spy:
    """A metric on its way to the host, which notes when it is read."""

    def __init__(self, value, step, started):
        self.value, self.step, self.started = value, step, started
        self.shape, self.dtype = value.shape, value.dtype

    def __array__(self, dtype=None, copy=None):
        self.started.append((self.step, max(step for step in self.started if type(step) is int)))
        return np.asarray(self.value, dtype)


@pytest.mark.parametrize("looked", [True, False])
def test_garbage_is_looked_for_as_before_once_a_step_is_traced(
    looked, tiny_run, tmp_path, monkeypatch
):
    during = []

    def traced(*_, **__):
        during.append(gc.isenabled())
        raise ConfigError("this step cannot be traced")

    monkeypatch.setattr(blueprint, "trace_step", traced)
    setup = Setup.of(tiny_run(workdir=str(tmp_path)))
    if not looked:
        gc.disable()
    try:
        with pytest.raises(ConfigError, match="cannot be traced"):
            setup.compile_ahead(draws=True)
        assert gc.isenabled() == looked and during == [False]
    finally:
        gc.enable()


def test_a_step_is_read_only_after_the_next_has_been_started(
    tiny_run, tmp_path, quiet, monkeypatch
):
    """Nothing in the loop waits for the step that the device computes."""
    events = []
    setup = Setup.of(tiny_run(workdir=str(tmp_path), steps=4, checkpoint_every=60.0, limit=80))
    state = setup.init()

    def instead(_, image, label):
        step = 1 + max((event for event in events if type(event) is int), default=0)
        events.append(step)
        values = [np.float32(value) for value in (0.5, 0.1, 0.01)]
        return state, loop.Monitor.push.__globals__["StepMetrics"](
            *(Spy(value, step, events) for value in values)
        )

    instead.summary = lambda: ""
    monkeypatch.setattr(Setup, "program", property(lambda self: instead))
    monkeypatch.setattr(Setup, "init", lambda self, start: state)
    monkeypatch.setattr(loop.Setup, "of", lambda config: setup)
    monkeypatch.setattr(loop._Run, "_evaluate", lambda self: None)
    fit(setup.config, quiet)
    reads = [event for event in events if type(event) is tuple]
    assert {step for step, _ in reads} == {1, 2, 3, 4}
    assert all(latest == step + 1 for step, latest in reads if step < 4)


@pytest.fixture
def no_cache():
    """JAX without a folder for compiled programs."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.usefixtures("no_cache")
def test_compiled_programs_are_kept_by_default(small_run, tmp_path, monkeypatch):
    monkeypatch.setenv("FLAXSEG_CACHE", str(tmp_path / "cache"))
    assert keep_programs(small_run(compile_cache=False)) is None
    assert jax.config.jax_compilation_cache_dir is None
    assert keep_programs(small_run()) == tmp_path / "cache" / "xla"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache" / "xla")
    assert keep_programs(small_run(cache_dir=str(tmp_path / "other"))) is None  # one is set


@pytest.mark.usefixtures("no_cache")
def test_place_of_compiled_programs(small_run, tmp_path, monkeypatch):
    assert keep_programs(small_run(cache_dir=str(tmp_path / "mine"))) == tmp_path / "mine"
    jax.config.update("jax_compilation_cache_dir", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--cache-dir .*/file/x cannot be made .*--no-compile"):
        keep_programs(small_run(cache_dir=str(tmp_path / "file/x")))
    monkeypatch.setenv("FLAXSEG_CACHE", str(tmp_path / "file"))
    assert keep_programs(small_run()) is None
