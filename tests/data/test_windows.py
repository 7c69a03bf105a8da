import numpy as np
import pytest

from flaxseg.data import Example, RareClasses, TrainTransform
from flaxseg.data.transforms.windows import draw_view, largest_share
from flaxseg.errors import ConfigError


@pytest.fixture
def label():
    """Class 0 with a small block of class 1 and one pixel of class 2; a strip is unlabelled."""
    label = np.zeros((60, 80), np.uint8)
    label[20:30, 50:60] = 1
    label[44, 3] = 2
    label[:, 70:] = 255
    return label


def views(label, count=200, size=(16, 20), factor=1.0, **settings):
    """Windows of the label map."""
    rng = np.random.default_rng(0)
    return [label[draw_view(label, size, factor, rng, **settings).window] for _ in range(count)]


def test_share_counts_labelled_pixels(label):
    assert largest_share(label) == pytest.approx((60 * 70 - 101) / (60 * 70))
    assert largest_share(label[20:30, 50:70]) == 0.5
    assert largest_share(label[:, 70:]) == 1.0


def test_crops_of_one_class_are_drawn_anew(label):
    """A window passes with probability p, and eleven are drawn at most."""
    limit = 0.75
    free = np.mean([largest_share(window) < limit for window in views(label, 4000)])
    chosen = [largest_share(window) < limit for window in views(label, cat_max_ratio=limit)]
    assert 0.02 < free < 0.15
    assert abs(np.mean(chosen) - (1 - (1 - free) ** 11)) < 0.12


def test_the_eleventh_crop_is_taken_as_it_is(label, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "flaxseg.data.transforms.windows.largest_share", lambda window: asked.append(window) or 1.0
    )
    rng, same = np.random.default_rng(0), np.random.default_rng(0)
    view = draw_view(label, (16, 20), 1.0, rng, cat_max_ratio=0.5)
    expected = [draw_view(label, (16, 20), 1.0, same) for _ in range(11)]
    assert len(asked) == 10
    assert view == expected[-1]


def test_any_crop_will_do_at_ratio_one(label, monkeypatch):
    monkeypatch.setattr("flaxseg.data.transforms.windows.largest_share", pytest.fail)
    draw_view(label, (16, 20), 1.0, np.random.default_rng(0), cat_max_ratio=1.0)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_crops_contain_a_rare_class(label, factor):
    """Class 2 is a million times as rare as the others, so it is drawn always."""
    rare = RareClasses(1.0, (10**9, 10**9, 10))
    windows = views(label, size=(18, 21), factor=factor, rare=rare)
    assert all((window == 2).any() for window in windows)
    assert len({window.tobytes() for window in windows}) > 1


def test_classes_are_drawn_with_the_inverse_of_their_frequency(label):
    rare = RareClasses(1.0, (100, 300, 600))
    rng = np.random.default_rng(1)
    drawn = [label[rare.pick(label, rng)] for _ in range(3000)]
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    np.testing.assert_allclose(shares, np.array([6, 2, 1]) / 9, atol=0.03)


def test_every_pixel_of_the_class_may_be_drawn(label):
    rare = RareClasses(1.0, (10**9, 1, 10**9))
    rng = np.random.default_rng(0)
    places = {rare.pick(label, rng) for _ in range(1500)}
    assert places == {(row, column) for row in range(20, 30) for column in range(50, 60)}


def test_a_share_of_the_crops_is_chosen_for_rare_classes(label):
    rare = RareClasses(0.5, (10**9, 10**9, 1))
    seen = np.mean([(window == 2).any() for window in views(label, 1000, rare=rare)])
    free = np.mean([(window == 2).any() for window in views(label, 1000)])
    assert abs(seen - (0.5 + 0.5 * free)) < 0.06


def test_a_picture_without_labels_has_no_rare_class():
    empty = np.full((9, 9), 255, np.uint8)
    assert RareClasses(1.0, (5, 5)).pick(empty, np.random.default_rng(0)) is None
    assert (views(empty, 3, size=(4, 4), rare=RareClasses(1.0, (5, 5)))[0] == 255).all()


def test_classes_that_the_training_set_lacks_do_no_harm(label):
    assert RareClasses(1.0, (0, 0, 0)).pick(label, np.random.default_rng(0)) is not None


def factors(label, **settings):
    """Magnifications, from the size of a picture much smaller than the result."""
    transform = TrainTransform((900, 900), hflip=0, color_jitter=(0, 0, 0, 0), **settings)
    return np.array(
        [transform._draw_factor(label.shape, np.random.default_rng(seed)) for seed in range(2000)]
    )


def test_magnifications_follow_their_law(label):
    uniform, logarithmic = (factors(label, scale_law=law) for law in ("uniform", "log-uniform"))
    for drawn in (uniform, logarithmic):
        assert 0.5 <= drawn.min() < 0.51 and 1.98 < drawn.max() <= 2.0
    assert abs(np.mean(uniform < 1.25) - 0.5) < 0.03
    assert abs(np.mean(logarithmic < 1) - 0.5) < 0.03


@pytest.mark.parametrize(
    ("base_size", "fit"),
    [((160, 120), 2.0), ((120, 160), 2.0), ((160, 60), 1.0), ((80, 600), 80 / 60)],
)
def test_pictures_are_fitted_into_the_base_size(label, base_size, fit):
    """The longer side fits the longer one and the shorter side the shorter one; 60 x 80 here."""
    np.testing.assert_allclose(factors(label, base_size=base_size), fit * factors(label))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale_law": "normal"}, "scale_law 'normal': use log-uniform or uniform"),
        ({"base_size": (0, 5)}, r"base_size \(0, 5\): give two sides of at least 1 pixel"),
        ({"cat_max_ratio": 0.0}, "cat_max_ratio 0.0: give a share above 0, up to 1"),
        ({"rotation": 181.0}, "rotation 181.0: give 0 to 180 degrees"),
        ({"interpolation": "cubic"}, "interpolation 'cubic': use bilinear or nearest"),
    ],
)
def test_bad_settings_of_crops(arguments, message):
    with pytest.raises(ConfigError, match=message):
        TrainTransform((8, 8), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.5, (1, 2)), "rare classes: chance 1.5: give a value from 0 to 1"),
        ((0.5, ()), r"rare classes: pixels \(\): give a count for each class"),
        ((0.5, (3, -1)), r"rare classes: pixels \(3, -1\): give a count for each class"),
    ],
)
def test_bad_rare_classes(arguments, message):
    with pytest.raises(ConfigError, match=message):
        RareClasses(*arguments)


def test_a_rare_crop_shows_the_class_where_nothing_is_made_smaller(label):
    image = np.repeat(label[..., None], 3, axis=-1)
    transform = TrainTransform((32, 32), scale=(1, 2), rare=RareClasses(1.0, (10**9, 10**9, 1)))
    for seed in range(20):
        result = transform(Example(image, label), np.random.default_rng(seed))
        assert (result.label == 2).any()
