import pytest

from flaxseg.errors import ConfigError
from flaxseg.labels import LabelSet


def test_survives_json():
    labels = LabelSet("two", ("a", "b"), ((0, 0, 0), (255, 128, 0)))
    assert LabelSet.from_json(labels.to_json()) == labels


@pytest.mark.parametrize("num_classes", [1, 21, 150, 255])
def test_generic_colours_differ(num_classes):
    labels = LabelSet.generic(num_classes)
    assert labels.num_classes == num_classes
    assert len(set(labels.palette)) == num_classes


def test_counts_are_checked():
    with pytest.raises(ConfigError, match="'two' has 2 classes and 1 colours"):
        LabelSet("two", ("a", "b"), ((0, 0, 0),))
    with pytest.raises(ConfigError, match="256 classes, 1 to 255 fit"):
        LabelSet("many", ("a",) * 256, ((0, 0, 0),) * 256)


def test_names_and_colours_are_checked():
    with pytest.raises(ConfigError, match="'two' has two classes called 'a'"):
        LabelSet("two", ("a", "a"), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(ConfigError, match=r"gives 'b' the colour \(0, 256, 0\): it must be three"):
        LabelSet("two", ("a", "b"), ((0, 0, 0), (0, 256, 0)))
