import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from flaxseg.errors import CheckpointError
from flaxseg.training.checkpoints import Checkpoints, History
from flaxseg.training.sharding import make_mesh, replicated
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
            history = History(0.25, 3, (0.5, 1 / 3))
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
    assert snapshot.history == History(0.25, 3, (0.5, 1 / 3))


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
    snapshot, lines = restore(saved, abstract)
    assert int(snapshot.state.step) == 3
    assert lines == []
    assert [path.name for path in (saved / "last").iterdir()] == ["3"]


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


def test_checkpoint_of_another_model_is_refused(saved, abstract):
    other = {**RUN, "model_config": {"width": 4}, "classes": ["sky"]}
    message = r"model_config.width was 3, now 4; classes was sky road, now sky\): choose another"
    with pytest.raises(CheckpointError, match=message):
        restore(saved, abstract, other)


def test_full_disk_is_reported_as_such(tmp_path, monkeypatch):
    with Checkpoints(tmp_path, RUN) as checkpoints:

        def no_space(*args, **kwargs):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoints._last, "save", no_space)
        with pytest.raises(CheckpointError, match="could not be written .*No space left on device"):
            checkpoints.save(1, make_state(1), {}, History())


def test_history_is_plain_data():
    assert dataclasses.asdict(History()) == {"best_miou": None, "best_step": None, "losses": ()}
