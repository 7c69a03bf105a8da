"""A seed gives the same pictures in the same order however the run is spread and interrupted."""

import itertools

import jax
import numpy as np
import pytest

from flaxseg.data import (
    Batch,
    PhotometricDistortion,
    RareClasses,
    Shapes,
    TrainTransform,
    train_loader,
)
from flaxseg.sharding import make_mesh
from flaxseg.training.feed import Feed

BATCH, STEPS = 8, 7
EVERYTHING = TrainTransform(
    (24, 28),
    vflip=0.5,
    scale_law="uniform",
    base_size=(40, 30),
    cat_max_ratio=0.75,
    rare=RareClasses(0.5, (900, 40, 30, 20, 10, 5)),
    rotation=20.0,
    photometric=PhotometricDistortion(),
)


@pytest.fixture(scope="module")
def shapes():
    """Two batches an epoch, and some images left over."""
    return Shapes("train", image_size=(32, 36), length=19)


@pytest.fixture(scope="module")
def whole(shapes):
    """The first steps of a run in one process."""
    return list(itertools.islice(loader(shapes), STEPS))


def loader(shapes, **settings):
    return train_loader(shapes, EVERYTHING, batch_size=BATCH, seed=11, **settings)


def part(shapes, index, count, position=None, steps=STEPS, **settings):
    """Batches of one of several processes, from a saved position on."""
    iterator = iter(loader(shapes, process_index=index, process_count=count, **settings))
    if position is not None:
        iterator.set_state(position)
    return list(itertools.islice(iterator, steps))


def assert_equal(batches, expected):
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        for name, values in batch._asdict().items():
            np.testing.assert_array_equal(values, getattr(other, name), name)


def test_no_picture_comes_out_twice_the_same(whole):
    """Else the other tests would compare little."""
    images = [image.tobytes() for batch in whole for image in batch.image]
    assert len(set(images)) == len(images) > len({int(i) for b in whole for i in b.index})


@pytest.mark.parametrize("count", [2, 4, 8])
def test_each_process_takes_its_rows_of_the_global_batch(shapes, whole, count):
    rows = BATCH // count
    for process in range(count):
        own = slice(process * rows, (process + 1) * rows)
        expected = [Batch(*(values[own] for values in batch)) for batch in whole]
        assert_equal(part(shapes, process, count), expected)


@pytest.mark.parametrize("position", range(STEPS))
def test_resumed_at_any_step_on_another_number_of_processes(shapes, whole, position):
    iterator = iter(loader(shapes, process_index=1, process_count=2, num_threads=1))
    for _ in range(position):
        next(iterator)
    state = iterator.get_state()
    rest = STEPS - position
    assert_equal(part(shapes, 0, 1, state, rest, num_threads=3), whole[position:])
    second = [Batch(*(values[2:4] for values in batch)) for batch in whole[position:]]
    assert_equal(part(shapes, 1, 4, state, rest), second)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_devices_share_the_same_batches(shapes, whole, devices):
    """Also behind a checkpoint that was saved with another number of devices."""
    feed = Feed(loader(shapes), make_mesh(jax.devices()[:devices]))
    taken = [feed.take() for _ in range(3)]
    resumed = Feed(loader(shapes), make_mesh(jax.devices()[: 8 // devices]), taken[-1].position)
    taken += [resumed.take() for _ in range(STEPS - 3)]
    assert len(taken[0].image.sharding.device_set) == devices
    for fed, batch in zip(taken, whole, strict=True):
        np.testing.assert_array_equal(np.asarray(fed.image), batch.image)
        np.testing.assert_array_equal(np.asarray(fed.label), batch.label)
        np.testing.assert_array_equal(fed.index, batch.index)
