import json

import numpy as np
import pytest

from flaxseg.errors import ConfigError
from flaxseg.labels import LabelSet


def test_survives_json():
    labels = LabelSet("two", ("a", "b"), ((0, 0, 0), (255, 128, 0)))
    assert LabelSet.from_json(labels.to_json()) == labels


def test_arrays_and_lists_are_the_same_label_set():
    given = LabelSet("x", ["a", "b"], np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    assert given == LabelSet("x", ("a", "b"), ((1, 2, 3), (4, 5, 6)))
    json.dumps(given.to_json())


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


def label_set(*classes: str) -> LabelSet:
    return LabelSet("names", classes, LabelSet.generic(len(classes)).palette)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("bed ", "bed"),
        ("Traffic Light", "traffic_light"),
        ("traffic-light", "TRAFFIC  LIGHT"),
        ("building, edifice", "building"),
        ("building;edifice", "Building , tower"),
        ("ｒｏａｄ", "road"),
        ("STRASSE", "straße"),
    ],
)
def test_names_of_one_meaning(ours, theirs):
    assert label_set("sky", ours).differences(label_set(" sky", theirs)) == []


def test_names_of_other_meanings():
    ours = label_set("sky", "road", "car, parked", "car, moving")
    assert ours.differences(label_set("sky", "street", "car, moving", "car, parked")) == [1, 2, 3]
    assert ours.differences(label_set("sky", "road", "car", "car, moving")) == [2]
    assert ours.differences(label_set("sky", "road")) == [2, 3]
    alike = label_set("a b", "a-b")
    assert alike.differences(alike) == [] and alike.differences(label_set("a-b", "a b")) == [0, 1]
