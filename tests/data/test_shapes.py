import numpy as np
import pytest

from flaxseg.data import Shapes
from flaxseg.data.shapes import LABELS
from flaxseg.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def scenes():
    source = Shapes("train", image_size=(48, 64))
    return [source[i] for i in range(60)]


def test_scene_is_a_function_of_split_and_index():
    again = Shapes("train")[7]
    assert np.array_equal(Shapes("train")[7].image, again.image)
    assert np.array_equal(Shapes("train")[7].label, again.label)
    assert not np.array_equal(Shapes("train")[8].image, again.image)


def test_splits_share_no_scene():
    train, val = (
        {Shapes(split, image_size=(16, 16))[i].image.tobytes() for i in range(100)}
        for split in ("train", "val")
    )
    assert len(train) == len(val) == 100
    assert not train & val


def test_scene_has_size_and_types(scenes):
    for image, label in scenes:
        assert image.shape == (48, 64, 3) and image.dtype == np.uint8
        assert label.shape == (48, 64) and label.dtype == np.uint8


def test_labels_are_classes_and_all_occur(scenes):
    values, counts = np.unique([label for _, label in scenes], return_counts=True)
    assert values.tolist() == list(range(LABELS.num_classes))
    assert counts.min() > 0.02 * counts.sum()
    assert counts[0] < 0.8 * counts.sum()


def test_no_colour_threshold_tells_the_classes(scenes):
    """Mean colours overlap: the nearest class mean is wrong for many pixels."""
    pixels = np.concatenate([image.reshape(-1, 3) for image, _ in scenes]).astype(float)
    ids = np.concatenate([label.ravel() for _, label in scenes])
    means = np.array([pixels[ids == k].mean(0) for k in range(LABELS.num_classes)])
    nearest = ((pixels[:, None] - means) ** 2).sum(-1).argmin(1)
    ious = [
        np.sum((nearest == k) & (ids == k)) / np.sum((nearest == k) | (ids == k))
        for k in range(LABELS.num_classes)
    ]
    assert 0.1 < np.mean(ious) < 0.45


def test_noise_differs_between_scenes(scenes):
    residuals = [image[:8, :8].astype(int) - image[:8, 1:9] for image, _ in scenes[:10]]
    assert len({residual.tobytes() for residual in residuals}) == 10


def test_names_and_length():
    source = Shapes("val", length=3)
    assert len(source) == 3
    assert [source.name(i) for i in range(3)][-1] == "shapes/val/000002"
    with pytest.raises(IndexError, match="3 images, index 3"):
        source[3]


def test_iteration_ends():
    assert len(list(Shapes("val", length=4, image_size=(16, 16)))) == 4


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"split": "test"}, DataError, "no split 'test': use one of train, val"),
        ({"image_size": (8, 64)}, ConfigError, "8 x 64 is too small.*at least 16 x 16"),
        ({"length": 0}, ConfigError, "0 images: give at least 1"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        Shapes(**arguments)
