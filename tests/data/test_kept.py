import concurrent.futures
import itertools

import numpy as np
import pytest

from flaxseg.data import (
    KeptExamples,
    PhotometricDistortion,
    Shapes,
    TrainTransform,
    train_loader,
)
from flaxseg.data.source import Example
from flaxseg.training import make_config
from flaxseg.training.setup import open_datasets


@pytest.fixture
def counted(array_source, rng):
    """Six pictures of 400 bytes each, and how often each was read."""

    class Counted(array_source):
        def __getitem__(self, index):
            self.reads[index] += 1
            return Example(*(array.copy() for array in self.examples[index]))

    pictures = rng.integers(0, 200, (6, 10, 10, 3), np.uint8)
    source = Counted([Example(picture, picture[..., 0]) for picture in pictures])
    source.reads = [0] * 6
    return source


def test_a_kept_example_is_read_once(counted):
    kept = KeptExamples(counted, 1e6)
    for _, index in itertools.product(range(3), range(6)):
        for array, expected in zip(kept[index], counted.examples[index], strict=True):
            np.testing.assert_array_equal(array, expected)
    assert counted.reads == [1] * 6
    assert (len(kept), kept.name(2), kept.labels) == (6, "images/2.png", counted.labels)


def test_memory_is_limited(counted):
    kept = KeptExamples(counted, 1000)
    for _, index in itertools.product(range(3), range(6)):
        kept[index]
    assert counted.reads == [1, 1, 3, 3, 3, 3]


def test_kept_arrays_cannot_be_written_to(counted):
    kept = KeptExamples(counted, 1e6)
    with pytest.raises(ValueError, match="read-only"):
        kept[0].image[0] = 1


def test_threads_count_an_example_once(counted):
    kept = KeptExamples(counted, 6 * 400)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(kept.__getitem__, [i % 6 for i in range(600)]))
    before = list(counted.reads)
    assert [kept[index].label.shape for index in range(6)] == [(10, 10)] * 6
    assert counted.reads == before


def test_batches_are_the_same(counted):
    transform = TrainTransform((8, 8), rotation=10.0, photometric=PhotometricDistortion())
    plain, kept = (
        list(itertools.islice(train_loader(source, transform, batch_size=2, seed=1), 9))
        for source in (counted, KeptExamples(counted, 1e6))
    )
    for batch, other in zip(plain, kept, strict=True):
        np.testing.assert_array_equal(batch.image, other.image)
        np.testing.assert_array_equal(batch.label, other.label)


@pytest.mark.parametrize(("gigabytes", "reads"), [(0.0, 1), (0.5, 0)])
def test_a_run_keeps_what_it_is_told(gigabytes, reads, monkeypatch):
    config = make_config(
        limit=4, batch_size=4, check_labels=False, loader_threads=1, keep_decoded=gigabytes
    )
    batches = iter(open_datasets(config).train_batches)
    for _ in range(8):  # beyond what the loader reads ahead
        next(batches)
    read = []
    draw = Shapes.__getitem__
    monkeypatch.setattr(Shapes, "__getitem__", lambda *args: read.append(1) or draw(*args))
    for _ in range(8):
        next(batches)
    assert (len(read) > 0) == reads
