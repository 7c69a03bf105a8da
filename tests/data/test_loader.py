import itertools
import json

import numpy as np
import pytest

from flaxseg.data import (
    EvalTransform,
    Shapes,
    TrainTransform,
    eval_loader,
    open_run_source,
    pad_batch,
    steps_per_epoch,
    train_loader,
)
from flaxseg.errors import ConfigError, DataError

AUGMENT = TrainTransform((16, 16), color_jitter=(0.4, 0.4, 0.4, 0.1))


@pytest.fixture(scope="module")
def shapes():
    return Shapes("train", image_size=(20, 24), length=11)


def take(loader, count):
    return list(itertools.islice(iter(loader), count))


def assert_equal(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        for array, expected in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_batch_has_shapes_and_types(shapes):
    (batch,) = take(train_loader(shapes, AUGMENT, batch_size=4, seed=0), 1)
    assert batch.image.shape == (4, 16, 16, 3) and batch.image.dtype == np.uint8
    assert batch.label.shape == (4, 16, 16) and batch.label.dtype == np.uint8
    assert batch.weight.tolist() == [1] * 4 and batch.weight.dtype == np.float32
    assert batch.index.shape == (4,) and batch.index.dtype == np.int32


def test_batch_holds_the_examples_it_names(numbered):
    batches = take(train_loader(numbered(9), EvalTransform(), batch_size=3, seed=1), 6)
    for batch in batches:
        np.testing.assert_array_equal(batch.image[:, 0, 0, 0], batch.index)
        np.testing.assert_array_equal(batch.label[:, 0, 0], batch.index)


def test_epochs_are_permutations_that_differ(shapes):
    loader = train_loader(shapes, AUGMENT, batch_size=4, seed=0)
    steps = steps_per_epoch(shapes, 4)
    assert steps == 2
    indices = np.array([batch.index for batch in take(loader, 6 * steps)]).reshape(6, -1)
    assert all(len(set(epoch)) == 8 for epoch in indices.tolist())
    assert len({tuple(epoch) for epoch in indices.tolist()}) == 6
    assert set(indices.ravel().tolist()) == set(range(11))


def test_augmentation_differs_between_epochs(numbered):
    """The same image comes out differently each time."""
    source = Shapes("train", image_size=(20, 24), length=1)
    batches = take(train_loader(source, AUGMENT, batch_size=1, seed=0), 5)
    assert len({batch.image.tobytes() for batch in batches}) == 5


@pytest.mark.parametrize("num_threads", [1, 3])
def test_seed_decides_all(shapes, num_threads):
    first = take(train_loader(shapes, AUGMENT, batch_size=4, seed=5), 5)
    again = take(train_loader(shapes, AUGMENT, batch_size=4, seed=5, num_threads=num_threads), 5)
    other = take(train_loader(shapes, AUGMENT, batch_size=4, seed=6), 5)
    assert_equal(first, again)
    assert not np.array_equal([b.index for b in first], [b.index for b in other])


@pytest.mark.parametrize("taken", [1, 2, 5])
def test_resumed_iterator_goes_on(shapes, taken):
    whole = take(train_loader(shapes, AUGMENT, batch_size=4, seed=0), 9)
    iterator = iter(train_loader(shapes, AUGMENT, batch_size=4, seed=0))
    for _ in range(taken):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))

    resumed = iter(train_loader(shapes, AUGMENT, batch_size=4, seed=0))
    resumed.set_state(state)
    assert_equal(list(itertools.islice(resumed, 9 - taken)), whole[taken:])


def test_state_can_be_set_back(shapes):
    iterator = iter(train_loader(shapes, AUGMENT, batch_size=4, seed=0))
    next(iterator)
    state = iterator.get_state()
    batches = [next(iterator) for _ in range(3)]
    iterator.set_state(state)
    assert_equal([next(iterator) for _ in range(3)], batches)


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_global_batch(shapes, process_count):
    whole = take(train_loader(shapes, AUGMENT, batch_size=4, seed=3), 5)
    parts = [
        take(
            train_loader(
                shapes,
                AUGMENT,
                batch_size=4,
                seed=3,
                process_index=process,
                process_count=process_count,
            ),
            5,
        )
        for process in range(process_count)
    ]
    joined = [
        type(step[0])(*(np.concatenate(arrays) for arrays in zip(*step, strict=True)))
        for step in zip(*parts, strict=True)
    ]
    assert_equal(joined, whole)


def test_state_is_the_same_in_every_process(shapes):
    states = []
    for process_count in (1, 2):
        iterator = iter(
            train_loader(shapes, AUGMENT, batch_size=4, seed=3, process_count=process_count)
        )
        next(iterator)
        states.append(iterator.get_state())
    assert states[0] == states[1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"batch_size": 12},
            DataError,
            r"11 images \(shapes/train/000000, .*--batch-size 12.*11 or",
        ),
        ({"batch_size": 0}, ConfigError, "--batch-size 0: give at least 1"),
        ({"batch_size": 4, "process_count": 3}, ConfigError, "4 is not divisible by the 3 proc"),
        ({"batch_size": 4, "seed": -1}, ConfigError, "--seed -1.*0 to 4294967295"),
    ],
)
def test_bad_arguments(shapes, arguments, error, message):
    with pytest.raises(error, match=message):
        train_loader(shapes, AUGMENT, **({"seed": 0} | arguments))


def test_data_error_passes_through_the_threads(array_source):
    class Broken(array_source):
        def __getitem__(self, index):
            raise DataError("train/x.png: is broken")

    with pytest.raises(DataError, match="train/x.png: is broken"):
        take(train_loader(Broken([None] * 4), AUGMENT, batch_size=2, seed=0), 1)


def seen(batches):
    """Index of every example of weight 1, in order of appearance."""
    return [int(i) for b in batches for i, w in zip(b.index, b.weight, strict=True) if w]


def test_eval_takes_each_image_once_in_order(numbered):
    batches = list(eval_loader(numbered(7), EvalTransform(), batch_size=3))
    assert seen(batches) == list(range(7))
    assert [b.image.shape for b in batches] == [(3, 4, 5, 3)] * 3
    last = batches[-1]
    assert last.weight.tolist() == [1, 0, 0]
    assert (last.label[1:] == 255).all() and (last.image[1:] == 0).all()
    assert last.label.dtype == last.image.dtype == np.uint8
    assert (last.label[0] == 6).all()


def test_eval_can_be_repeated(numbered):
    loader = eval_loader(numbered(5), EvalTransform(), batch_size=2)
    assert_equal(list(loader), list(loader))


def test_eval_groups_sizes(numbered):
    source = numbered(10, sizes=((4, 5), (6, 7), (4, 5)))
    batches = list(eval_loader(source, EvalTransform(), batch_size=3))
    assert sorted(seen(batches)) == list(range(10))
    for batch in batches:
        for position, index in enumerate(batch.index):
            if batch.weight[position]:
                np.testing.assert_array_equal(batch.image[position], source[index].image)
                np.testing.assert_array_equal(batch.label[position], source[index].label)


def test_eval_lone_sizes_are_not_filled_up(numbered):
    """Each size of images has one batch shape, and canvases have two."""
    many = [(4, 5)] * 9 + [(6, 7)] + [(8, 9)] * 3

    def shapes(**options):
        source = numbered(len(many), sizes=many)
        batches = list(eval_loader(source, EvalTransform(), batch_size=8, **options))
        assert sorted(seen(batches)) == list(range(13))
        return [(len(batch.image), batch.image.shape[1]) for batch in batches]

    assert shapes() == [(8, 4), (8, 4), (1, 6), (4, 8)]
    assert shapes(few_programs=True) == [(8, 4), (8, 4), (1, 6), (8, 8)]


def test_eval_shape_of_a_size_is_that_of_its_first_batch(numbered):
    """A lone one came first, as too many sizes were waiting; later ones are cut to it."""
    sizes = [(4, 5), *((4, 6 + i) for i in range(8)), (4, 5), (4, 5)]
    batches = list(eval_loader(numbered(11, sizes=sizes), EvalTransform(), batch_size=2))
    assert sorted(seen(batches)) == list(range(11))
    assert [b.image.shape[:3] for b in batches if b.image.shape[2] == 5] == [(1, 4, 5)] * 3


def test_eval_groups_sizes_of_images_and_label_maps(numbered):
    """Pictures that are seen at one size may have label maps of several."""
    source = numbered(6, sizes=((4, 6), (8, 12)))
    batches = list(eval_loader(source, EvalTransform(base_size=(6, 4)), batch_size=2))
    assert sorted(seen(batches)) == list(range(6))
    sizes = {(batch.image.shape[1:3], batch.label.shape[1:]) for batch in batches}
    assert sizes == {((4, 6), (4, 6)), ((4, 6), (8, 12))}


def test_eval_holds_few_images_of_many_sizes(numbered):
    """Batches come before the end, though no size ever fills one."""
    read = []

    class Watched(type(numbered(1))):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    source = Watched(numbered(40, sizes=[(4, 5 + i) for i in range(40)]).examples)
    batches = iter(eval_loader(source, EvalTransform(), batch_size=2, num_threads=1))
    next(batches)
    assert len(read) < 40
    assert sorted([*seen(batches)]) == sorted(set(range(40)) - {0})


def test_eval_bad_batch_size(numbered):
    with pytest.raises(ConfigError, match="--batch-size 0: give at least 1"):
        eval_loader(numbered(3), EvalTransform(), batch_size=0)


def test_padding_is_not_counted(numbered):
    (batch,) = eval_loader(numbered(2), EvalTransform(), batch_size=2)
    padded = pad_batch(batch, 3)
    assert_equal([type(batch)(*(array[:2] for array in padded))], [batch])
    assert padded.weight.tolist() == [1, 1, 0]
    assert (padded.label[2] == 255).all()


def test_a_run_draws_scenes_that_fill_its_crops():
    for size, drawn in [((64, 64), (96, 96)), ((32, 128), (96, 128)), (None, (96, 96))]:
        source = open_run_source("shapes", "val", image_size=size, limit=3)
        assert source[2].label.shape == drawn
        assert len(source) == 3
        assert source.name(2) == "shapes/val/000002"
