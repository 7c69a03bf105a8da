import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from flaxseg.errors import CheckpointError
from flaxseg.sharding import make_mesh, replicated
from flaxseg.training.checkpoints import Checkpoints, History
from flaxseg.training.step import init_state

RUN = {"model": "tiny", "model_config": {"width": 3}, "classes": ["sky", "road"]}


class Tiny(nnx.Module):
    """One layer with statistics, in a list as the networks have them."""

    def __init__(self):
        self.layers = nnx.List([nnx.Param(jnp.arange(6.0).reshape(2, 3))])
        self.mean = nnx.BatchStat(jnp.zeros(3))


def make_state(step=0):
    state = init_state(Tiny(), optax.sgd(optax.constant_schedule(0.1), momentum=0.9))
    moved = jax.tree.map(lambda leaf: leaf + step, state)
    return jax.device_put(moved, replicated(make_mesh()))


@pytest.fixture
def abstract():
    def describe(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

    return jax.tree.map(describe, make_state())


@pytest.fixture
def saved(tmp_path):
    """A folder with the checkpoints of steps 3 and 5; 3 was the best."""
    with Checkpoints(tmp_path, RUN) as checkpoints:
        for step in (1, 3, 5):
            history = History(0.25, 3, (0.5, 1 / 3), (0.25,))
            checkpoints.save(step, make_state(step), {"next_index": step}, history)
        checkpoints.save_best(3, make_state(3), {"next_index": 3}, History(0.25, 3))
    return tmp_path


def restore(directory, abstract, run=RUN):
    lines = []
    with Checkpoints(directory, run) as checkpoints:
        return checkpoints.restore(abstract, lines.append), lines


def damage(directory, step):
    """Cuts every file of a checkpoint in half, as a full disk may."""
    for path in (directory / "last" / str(step)).rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_restores_the_latest_with_all_its_parts(saved, abstract):
    snapshot, lines = restore(saved, abstract)
    expected = make_state(5)
    assert lines == []
    assert jax.tree.structure(snapshot.state) == jax.tree.structure(expected)
    for ours, theirs in zip(
        jax.tree.leaves(snapshot.state), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.sharding.is_equivalent_to(theirs.sharding, ours.ndim)
    assert snapshot.position == {"next_index": 5}
    assert snapshot.history == History(0.25, 3, (0.5, 1 / 3), (0.25,))


def test_keeps_two_and_the_best(saved):
    assert sorted(path.name for path in (saved / "last").iterdir()) == ["3", "5"]
    assert [path.name for path in (saved / "best").iterdir()] == ["3"]


def test_empty_folder_has_nothing_to_restore(tmp_path, abstract):
    assert restore(tmp_path, abstract) == (None, [])


def test_saving_a_step_again_is_no_error(saved):
    with Checkpoints(saved, RUN) as checkpoints:
        checkpoints.save(5, make_state(5), {}, History())
        assert checkpoints.latest_step == 5


def test_saved_values_survive_a_donation_right_after(tmp_path, abstract):
    advance = jax.jit(lambda tree: jax.tree.map(lambda x: x + 100, tree), donate_argnums=0)
    with Checkpoints(tmp_path, RUN) as checkpoints:
        state = make_state(1)
        checkpoints.save(1, state, {}, History())
        jax.block_until_ready(advance(state))
    snapshot, _ = restore(tmp_path, abstract)
    assert int(snapshot.state.step) == 1


def test_damaged_checkpoint_gives_way_to_the_one_before(saved, abstract):
    damage(saved, 5)
    snapshot, (line,) = restore(saved, abstract)
    assert int(snapshot.state.step) == 3
    assert line.startswith("checkpoint of step 5 is damaged (")
    assert line.endswith(f"moved to {saved / 'damaged' / '5'}: going on from step 3")
    assert (saved / "damaged" / "5").is_dir()
    with Checkpoints(saved, RUN) as checkpoints:
        checkpoints.save(5, make_state(5), {}, History())
    assert int(restore(saved, abstract)[0].state.step) == 5


def test_unfinished_checkpoint_is_ignored_and_removed(saved, abstract):
    (saved / "last" / "5").rename(saved / "last" / "5.orbax-checkpoint-tmp")
    with Checkpoints(saved, RUN) as checkpoints:
        assert int(checkpoints.restore(abstract, pytest.fail).state.step) == 3
        # It is removed in the background; the next checkpoint waits for that.
        checkpoints.save(4, make_state(4), {}, History())
    assert sorted(path.name for path in (saved / "last").iterdir()) == ["3", "4"]


def test_best_of_later_steps_is_measured_again(saved, abstract):
    with Checkpoints(saved, RUN) as checkpoints:
        checkpoints.save_best(5, make_state(5), {}, History())
    damage(saved, 5)
    restore(saved, abstract)
    assert list((saved / "best").iterdir()) == []


def test_nothing_readable_is_an_error_and_nothing_is_touched(saved, abstract):
    damage(saved, 3)
    damage(saved, 5)
    with pytest.raises(CheckpointError, match="no checkpoint can be read .step 5: .*; step 3: "):
        restore(saved, abstract)
    assert sorted(path.name for path in (saved / "last").iterdir()) == ["3", "5"]


def test_checkpoint_of_another_run_is_refused(saved, abstract):
    other = {**RUN, "model_config": {"width": 4}, "classes": ["sky"]}
    message = (
        r"another run \(model_config.width was 3, now 4; classes was sky road, now sky\): choose"
    )
    with pytest.raises(CheckpointError, match=message):
        restore(saved, abstract, other)


FULL_DISK = """
import pathlib, resource, signal, sys
from flaxseg.training.checkpoints import Checkpoints, CheckpointError, History
from test_checkpoints import RUN, make_state

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Checkpoints(pathlib.Path(sys.argv[1]), RUN) as checkpoints:
    checkpoints.save(1, make_state(1), {}, History())
    checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
    try:
        checkpoints.save(2, make_state(2), {}, History())
        checkpoints.wait()
    except CheckpointError as error:
        sys.exit(str(error))
"""


def test_full_disk_is_reported_and_leaves_the_checkpoint_before(tmp_path, abstract):
    """Beyond a limit of the process every write fails, as on a full disk."""
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1, ended.stderr
    assert f"{tmp_path}: the checkpoint could not be written (" in ended.stderr
    assert int(restore(tmp_path, abstract)[0].state.step) == 1


def test_an_error_inside_is_not_masked_by_one_of_closing(tmp_path, monkeypatch):
    closed = []

    def fail(name):
        closed.append(name)
        raise OSError(28, "No space left on device")

    for error in (KeyError("the first error"), None):
        checkpoints = Checkpoints(tmp_path, RUN)
        for name in ("_last", "_best"):
            getattr(checkpoints, name).close()
            monkeypatch.setattr(getattr(checkpoints, name), "close", lambda name=name: fail(name))
        with pytest.raises(KeyError if error else CheckpointError, match="first|No space left"):
            with checkpoints:
                if error:
                    raise error
    assert closed == ["_last", "_best"] * 2


def test_history_is_plain_data():
    assert dataclasses.asdict(History()) == {
        "best_miou": None, "best_step": None, "losses": (), "accuracies": (), "terms": {},
        "waited": 0, "ended": None, "seconds": 0.0,
    }  # fmt: skip
