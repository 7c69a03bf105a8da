import numpy as np
import pytest

from flaxseg.data import Example, check_labels, count_labels, open_source
from flaxseg.data.source import FirstExamples

LABELS = [
    [[0, 0, 0], [0, 1, 255]],
    [[1, 1, 255], [255, 255, 255]],
    [[255, 255, 255], [255, 255, 255]],
    [[0, 0, 0], [0, 0, 1]],
]


@pytest.fixture
def statistics(array_source):
    labels = [np.array(label, np.uint8) for label in LABELS]
    examples = [Example(np.zeros((2, 3, 3), np.uint8), label) for label in labels]
    return count_labels(array_source(examples, num_classes=3))


def test_counts(statistics):
    assert statistics.sizes.tolist() == [[2, 3]] * 4
    assert statistics.pixels.tolist() == [9, 4, 0]
    assert statistics.ignored == 11
    assert statistics.images.tolist() == [2, 3, 0]
    assert statistics.image_pixels.tolist() == [11, 13, 0]
    assert statistics.empty.tolist() == [2]
    assert statistics.uniform.tolist() == [1]
    np.testing.assert_allclose(statistics.shares, [9 / 13, 4 / 13, 0])


def test_weights(statistics):
    """By hand: class 0 has 9 of the 11 pixels of its images, class 1 has 4 of 13."""
    frequencies = np.array([9 / 11, 4 / 13])
    expected = [*(frequencies.mean() / frequencies), 0]
    np.testing.assert_allclose(statistics.median_frequency_weights(), expected)
    np.testing.assert_allclose(
        statistics.enet_weights(), [1 / np.log(1.02 + share) for share in (9 / 13, 4 / 13, 0)]
    )


def test_nothing_labelled(statistics):
    nothing = type(statistics)(statistics.sizes[2:3], statistics.counts[2:3], 3)
    assert nothing.median_frequency_weights().tolist() == [0, 0, 0]
    assert nothing.shares.tolist() == [0, 0, 0]


def test_prepared_data_is_not_read_again(plain_dir, cache, monkeypatch):
    source = open_source("folder", "train", data_dir=plain_dir, cache_dir=cache)
    labels = np.stack([example.label for example in source])
    monkeypatch.setattr(type(source), "__getitem__", None)
    report = check_labels(source)
    assert report.pixels.tolist() == [(labels == 0).sum(), (labels == 1).sum()]
    assert (report.num_images, report.ignored) == (8, 0)
    first = check_labels(FirstExamples(source, 3))
    assert first.pixels.sum() == labels[:3].size and first.num_images == 3
