import numpy as np
import pytest

from flaxseg.data import Example, Shapes, check_labels
from flaxseg.errors import DataError


def example(label, size=None):
    label = np.asarray(label)
    return Example(np.zeros((*(size or label.shape[:2]), 3), np.uint8), label)


def test_report_counts_pixels(array_source):
    labels = [np.array([[0, 1, 1]], np.uint8), np.array([[2, 255, 1]], np.uint8)]
    report = check_labels(array_source([example(label) for label in labels], num_classes=4))
    assert report.num_images == 2
    assert report.pixels.tolist() == [1, 3, 1, 0]
    assert report.ignored == 1


def test_shapes_pass():
    report = check_labels(Shapes("val", image_size=(32, 32), length=20))
    assert report.pixels.sum() == 20 * 32 * 32 and report.ignored == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            example(np.array([[0, 1], [4, 9]], np.uint8)),
            r"1 of 2 examples .*images/1.png: class id 4, 9 in 2 pixels \(first at row 1, column 0"
            r"\); allowed are 0 to 3, and 255",
        ),
        (example(np.array([[-1]], np.int16)), "images/1.png: class id -1 in 1 pixel .*0 to 3"),
        (
            example(np.zeros((2, 3), np.uint8), size=(4, 5)),
            r"images/1.png: the label map has shape \(2, 3\), but the image \(4, 5\)",
        ),
        (
            example(np.zeros((2, 3, 3), np.uint8)),
            r"images/1.png: .*\(2, 3, 3\), an RGB mask\?.*class ids.*0 to 3",
        ),
    ],
)
def test_bad_label_is_named(array_source, bad, message):
    good = example(np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match=message):
        check_labels(array_source([good, bad], num_classes=4))


def test_many_bad_labels_make_one_error(array_source):
    labels = [np.full((2, 2), 9 if i % 2 else 0, np.uint8) for i in range(20)]
    with pytest.raises(DataError) as caught:
        check_labels(array_source([example(label) for label in labels], num_classes=4))
    message = str(caught.value)
    assert message.startswith("10 of 20 examples cannot be used: ")
    assert [f"images/{i}.png" in message for i in (1, 3, 5, 7)] == [True, True, True, False]
    assert message.endswith("and 7 more")
    assert "\n" not in message
