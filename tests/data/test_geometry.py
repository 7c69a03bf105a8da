"""Pictures that hold their own coordinates show whether picture and label map move together."""

import cv2
import numpy as np
import pytest

from flaxseg.data import MEAN_PIXEL, Example, TrainTransform
from flaxseg.data.transforms.geometry import Span, View, flip, show, whole

HEIGHT, WIDTH = 110, 90
STILL = {"hflip": 0.0, "vflip": 0.0, "color_jitter": (0, 0, 0, 0)}


def same(image: np.ndarray) -> np.ndarray:
    return image


@pytest.fixture(scope="module")
def coordinates():
    """Two examples of one picture, (row, column, 200): labels are rows in one, columns in other."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    image = np.dstack((rows, columns, np.full_like(rows, 200)))
    return Example(image, rows), Example(image, columns)


SETTINGS = {
    "crop": {},
    "crop of small picture": {"scale": (0.3, 0.5)},
    "uniform": {"scale_law": "uniform", "base_size": (200, 60)},
    "stretch": {"resize": "stretch"},
    "nearest": {"interpolation": "nearest"},
    "rotated crop": {"rotation": 30.0},
    "rotated small picture": {"rotation": 90.0, "scale": (0.3, 0.5)},
    "rotated stretch": {"rotation": 15.0, "resize": "stretch"},
    "rotated nearest": {"rotation": 180.0, "interpolation": "nearest"},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("seed", range(4))
def test_picture_and_label_share_their_geometry(coordinates, name, seed):
    """Each pixel's label is the nearest source pixel to the place its colour was taken from."""
    settings = STILL | {"hflip": 0.5, "vflip": 0.5} | SETTINGS[name]
    transform = TrainTransform((64, 72), **settings)
    (image, rows), (again, columns) = (
        transform(example, np.random.default_rng(seed)) for example in coordinates
    )
    assert np.array_equal(image, again)
    assert image.shape == (64, 72, 3) and rows.shape == (64, 72)
    assert np.array_equal(rows == 255, columns == 255)
    # Along its border a turned picture is mixed with the colour around it.
    inner = (rows > 0) & (rows < HEIGHT - 1) & (columns > 0) & (columns < WIDTH - 1)
    assert inner.mean() > 0.05
    for channel, label in ((0, rows), (1, columns)):
        apart = np.abs(image[..., channel].astype(int) - label)[inner]
        assert apart.max() <= 1
        assert apart.mean() <= 0.5
    assert (image[inner][:, 2] == 200).all()


def test_a_turned_view_shows_the_picture_turned(coordinates):
    """By 90 degrees counter-clockwise, the right edge comes to lie on top."""
    example = Example(coordinates[0].image[:60, :60], coordinates[1].label[:60, :60])
    view = View(Span(0, 60, 0, 60), Span(0, 60, 0, 60), angle=90.0)
    image, label = show(example, view, (60, 60), same)
    np.testing.assert_array_equal(label, np.rot90(example.label))
    np.testing.assert_array_equal(image, np.rot90(example.image))


def test_a_turn_goes_about_the_middle_of_what_is_shown(coordinates):
    """A small picture in a corner of the canvas stays there."""
    example = Example(coordinates[0].image[:20, :20], coordinates[0].label[:20, :20])
    view = View(Span(0, 20, 40, 20), Span(0, 20, 0, 20), angle=180.0)
    image, label = show(example, view, (60, 60), same)
    np.testing.assert_array_equal(label[40:, :20], example.label[::-1, ::-1])
    np.testing.assert_array_equal(image[40:, :20], example.image[::-1, ::-1])
    assert (label == 255).sum() == 60 * 60 - 20 * 20


def test_free_corners_show_what_lies_beside_the_window(coordinates):
    """Within the picture nothing is filled up, beyond it with mean colour and 255."""
    inside = View(Span(40, 70, 0, 30), Span(30, 60, 0, 30), angle=45.0)
    assert (show(coordinates[0], inside, (30, 30), same).label != 255).all()
    corner = View(Span(0, 30, 0, 30), Span(0, 30, 0, 30), angle=45.0)
    image, label = show(coordinates[0], corner, (30, 30), same)
    filled = cv2.erode((label == 255).astype(np.uint8), np.ones((3, 3))) == 1
    assert filled.sum() > 30
    assert (image[filled] == MEAN_PIXEL).all()


@pytest.mark.parametrize("angle", [0.0, 20.0])
def test_colours_change_in_the_picture_but_not_around_it(coordinates, angle):
    view = View(Span(0, HEIGHT, 5, 20), Span(0, WIDTH, 3, 20), angle)
    image, label = show(coordinates[0], view, (40, 40), np.zeros_like)
    outside = cv2.erode((label == 255).astype(np.uint8), np.ones((3, 3))) == 1
    within = cv2.erode((label != 255).astype(np.uint8), np.ones((5, 5))) == 1
    assert within.any() and (image[within] == 0).all()
    assert outside.any() and (image[outside] == MEAN_PIXEL).all()


def test_stretching_is_a_view_of_the_whole(coordinates):
    image, label = show(coordinates[0], whole((HEIGHT, WIDTH), (30, 40)), (30, 40), same)
    assert label[:, 0].tolist() == [int((i + 0.5) * HEIGHT / 30) for i in range(30)]
    assert image.shape == (30, 40, 3)


def test_nearest_pictures_hold_no_new_colours(rng):
    image = rng.choice(np.array([0, 255], np.uint8), (40, 40, 3))
    transform = TrainTransform((33, 33), interpolation="nearest", rotation=0, **STILL)
    result = transform(Example(image, image[..., 0] // 255), rng)
    seen = set(np.unique(result.image[result.label != 255]))
    assert seen <= {0, 255}


@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("vertical", [False, True])
def test_flips(coordinates, horizontal, vertical):
    flipped = flip(coordinates[0], horizontal, vertical)
    axes = [axis for axis, wanted in ((0, vertical), (1, horizontal)) if wanted]
    np.testing.assert_array_equal(flipped.image, np.flip(coordinates[0].image, axes))
    np.testing.assert_array_equal(flipped.label, np.flip(coordinates[0].label, axes))


def log_uniform_crop(example, size, rng):
    """What a seed gave in the first version: its draws, in their order."""
    rng.uniform(-1, 1, 4)
    factor = np.exp(rng.uniform(*np.log((0.5, 2.0))))
    spans = []
    for length, target in zip(example.label.shape, size, strict=True):
        scaled = max(1, round(length * factor))
        if scaled <= target:
            spans.append((0, length, int(rng.integers(target - scaled + 1)), scaled))
        else:
            extent = min(length, max(1, round(target / factor)))
            start = int(rng.integers(length - extent + 1))
            spans.append((start, start + extent, 0, target))
    (top, bottom, y, height), (left, right, x, width) = spans
    image, label = example.image[top:bottom, left:right], example.label[top:bottom, left:right]
    if (height, width) != label.shape:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    canvas, target = np.full((*size, 3), MEAN_PIXEL, np.uint8), np.full(size, 255, np.uint8)
    canvas[y : y + height, x : x + width] = image
    target[y : y + height, x : x + width] = label
    if rng.uniform() < 0.5:
        canvas, target = canvas[:, ::-1], target[:, ::-1]
    return canvas, target


def test_the_defaults_give_what_they_always_gave(coordinates):
    transform = TrainTransform((70, 80), color_jitter=(0, 0, 0, 0))
    for seed in range(30):
        image, label = transform(coordinates[0], np.random.default_rng(seed))
        expected = log_uniform_crop(coordinates[0], (70, 80), np.random.default_rng(seed))
        np.testing.assert_array_equal(image, expected[0])
        np.testing.assert_array_equal(label, expected[1])
