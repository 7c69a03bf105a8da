import colorsys

import cv2
import numpy as np
import pytest

from flaxseg.data import Example, PhotometricDistortion, TrainTransform
from flaxseg.data.transforms.color import _Distortion
from flaxseg.errors import ConfigError


@pytest.fixture
def picture(rng):
    return rng.integers(0, 256, (12, 16, 3), np.uint8)


def convert(values, alpha=1.0, beta=0.0):
    """Scales and moves 8-bit values: cut off, rounded down."""
    return np.clip(values.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)


def reference(rgb, change):
    """mmsegmentation's definition on BGR, one step after the other."""
    bgr = rgb[..., ::-1].copy()
    if change.brightness:
        bgr = convert(bgr, beta=change.brightness)
    if not change.contrast_last:
        bgr = convert(bgr, alpha=change.contrast)
    if change.saturation != 1:
        hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
        hsv[..., 1] = convert(hsv[..., 1], alpha=change.saturation)
        bgr = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if change.hue:
        hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + change.hue) % 180
        bgr = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if change.contrast_last:
        bgr = convert(bgr, alpha=change.contrast)
    return bgr[..., ::-1]


def test_every_draw_equals_the_definition(picture):
    distortion = PhotometricDistortion()
    for seed in range(300):
        change = distortion.draw(np.random.default_rng(seed))
        np.testing.assert_array_equal(change(picture), reference(picture, change), str(change))


def test_draws_are_distributed_as_defined():
    changes = [PhotometricDistortion().draw(np.random.default_rng(s)) for s in range(2000)]
    for name, neutral, low, high in (
        ("brightness", 0, -32, 32),
        ("contrast", 1, 0.5, 1.5),
        ("saturation", 1, 0.5, 1.5),
        ("hue", 0, -18, 17),
    ):
        values = np.array([getattr(change, name) for change in changes])
        drawn = values[values != neutral]
        # One of the 36 hues that are drawn changes nothing.
        assert abs(len(drawn) / len(values) - 0.5) < 0.05, name
        assert low <= drawn.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < drawn.max() <= high
        assert abs(drawn.mean() - (low + high) / 2) < 0.05 * (high - low)
    assert {type(change.hue) for change in changes} == {int}
    assert abs(np.mean([change.contrast_last for change in changes]) - 0.5) < 0.05


def test_contrast_has_its_place():
    """Cut off at white before saturation, or after it."""
    picture = np.full((1, 1, 3), (240, 120, 120), np.uint8)
    first, last = (
        _Distortion(0.0, 1.5, 0.5, 0, contrast_last)(picture)[0, 0] for contrast_last in (0, 1)
    )
    np.testing.assert_allclose(first, (255, 217, 217), atol=2)
    np.testing.assert_allclose(last, (255, 255, 255), atol=2)


def test_values_are_rounded_down_and_cut_off():
    picture = np.array([[[1, 10, 250]]], np.uint8)
    assert _Distortion(0.9, 1.0, 1.0, 0, False)(picture).tolist() == [[[1, 10, 250]]]
    assert _Distortion(-1.5, 1.0, 1.0, 0, False)(picture).tolist() == [[[0, 8, 248]]]
    assert _Distortion(10.0, 1.0, 1.0, 0, False)(picture).tolist() == [[[11, 20, 255]]]
    assert _Distortion(0.0, 0.77, 1.0, 0, True)(picture).tolist() == [[[0, 7, 192]]]


@pytest.mark.parametrize("hue", [-18, 7, 17])
def test_hue_turns_by_two_degrees_each(picture, hue):
    turned = _Distortion(0.0, 1.0, 1.0, hue, False)(picture)
    before, after = (
        np.array([colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3) / 255])
        for image in (picture, turned)
    )
    vivid = (before[:, 1] > 0.3) & (before[:, 2] > 0.3)
    turn = (after[vivid, 0] - before[vivid, 0] - hue / 180 + 0.5) % 1 - 0.5
    assert np.abs(turn).max() < 0.02
    assert np.abs(after - before)[vivid, 1:].max() < 0.03


def test_without_any_change_the_picture_is_untouched(picture):
    assert _Distortion(0.0, 1.0, 1.0, 0, True)(picture) is picture


def test_distortion_takes_the_place_of_jitter(picture):
    label = np.zeros(picture.shape[:2], np.uint8)
    distortion = PhotometricDistortion()
    transform = TrainTransform(
        label.shape, resize="stretch", hflip=0, color_jitter=(1, 1, 1, 0.5), photometric=distortion
    )
    before = picture.copy()
    result = transform(Example(picture, label), np.random.default_rng(3))
    expected = distortion.draw(np.random.default_rng(3))(picture)
    np.testing.assert_array_equal(result.image, expected)
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"brightness": 256}, "brightness 256: give 0 to 255 grey levels"),
        ({"contrast": (1.5, 0.5)}, r"contrast \(1.5, 0.5\): give two factors, 0 <= lowest <= "),
        ({"saturation": (-1, 1)}, r"saturation \(-1, 1\): give two factors"),
        ({"hue": 91}, "hue 91: give a whole number from 0 to 90"),
    ],
)
def test_bad_strengths(arguments, message):
    with pytest.raises(ConfigError, match=message):
        PhotometricDistortion(**arguments)


def test_no_strength_changes_nothing(picture):
    distortion = PhotometricDistortion(0, (1, 1), (1, 1), 0)
    for seed in range(20):
        assert distortion.draw(np.random.default_rng(seed))(picture) is picture
