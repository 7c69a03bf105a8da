import cv2
import numpy as np
import pytest

from flaxseg.data import MEAN_PIXEL, EvalTransform, Example, TrainTransform
from flaxseg.errors import ConfigError

STILL = {"hflip": 0.0, "vflip": 0.0, "color_jitter": (0, 0, 0, 0)}


def painted(label: np.ndarray) -> Example:
    """A picture whose colour is its label, so that the two can be compared after a transform."""
    return Example(np.repeat(label[..., None], 3, axis=-1), label)


@pytest.fixture
def blocks(rng):
    """Labels 20, 60, 100, ... in blocks of 16 x 16 pixels."""
    ids = 20 + 40 * rng.integers(0, 6, (5, 7), np.uint8)
    return painted(np.kron(ids, np.ones((16, 16), np.uint8)))


@pytest.mark.parametrize("resize", ["crop", "stretch"])
@pytest.mark.parametrize("seed", range(12))
def test_label_stays_on_its_image(blocks, resize, seed):
    transform = TrainTransform(
        (50, 60), hflip=0.5, vflip=0.5, color_jitter=(0, 0, 0, 0), resize=resize
    )
    image, label = transform(blocks, np.random.default_rng(seed))
    assert image.shape == (50, 60, 3) and label.shape == (50, 60)
    assert set(np.unique(label)) <= set(np.unique(blocks.label)) | {255}
    inside = label != 255
    # Bilinear pictures differ from nearest labels along the edges of blocks only.
    same = np.abs(image[..., 0].astype(int) - label) <= 1
    assert same[inside].mean() > 0.75
    assert (image[~inside] == MEAN_PIXEL).all()


def test_same_generator_same_result(blocks):
    transform = TrainTransform((40, 40), color_jitter=(0.5, 0.5, 0.5, 0.2))
    first, again, other = (transform(blocks, np.random.default_rng(s)) for s in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.label, again.label)
    assert not np.array_equal(first.image, other.image)


def test_padding_is_mean_pixel_and_ignore():
    example = painted(np.full((10, 12), 7, np.uint8))
    transform = TrainTransform((32, 32), scale=(1, 1), color_jitter=(0.9, 0.9, 0.9, 0.4))
    image, label = transform(example, np.random.default_rng(0))
    assert np.sum(label == 7) == 10 * 12
    assert np.sum(label == 255) == 32 * 32 - 10 * 12
    assert (image[label == 255] == MEAN_PIXEL).all()


def test_scale_changes_the_size_of_things():
    example = painted(np.full((20, 30), 7, np.uint8))
    transform = TrainTransform((100, 100), scale=(0.5, 2.0), **STILL)
    areas = [
        np.sum(transform(example, np.random.default_rng(seed)).label == 7) for seed in range(200)
    ]
    assert 150 <= min(areas) < 200
    assert 2000 < max(areas) <= 2400


def test_crop_at_scale_one_is_a_window(rng):
    example = painted(rng.integers(0, 200, (20, 30), np.uint8))
    image, label = TrainTransform((8, 9), scale=(1, 1), **STILL)(example, rng)
    windows = np.lib.stride_tricks.sliding_window_view(example.label, (8, 9))
    assert (windows == label).all(axis=(2, 3)).sum() == 1
    assert np.array_equal(image[..., 0], label)


def test_crop_reaches_every_border(rng):
    """First and last row and column are seen."""
    example = painted(np.arange(100, dtype=np.uint8).reshape(10, 10))
    transform = TrainTransform((8, 8), scale=(1, 1), **STILL)
    seen = {int(v) for _ in range(60) for v in np.unique(transform(example, rng).label)}
    assert seen == set(range(100))


@pytest.mark.parametrize(("flag", "axis"), [("hflip", 1), ("vflip", 0)])
def test_flips(rng, flag, axis):
    example = painted(rng.integers(0, 200, (6, 8), np.uint8))
    transform = TrainTransform((6, 8), scale=(1, 1), **(STILL | {flag: 1.0}))
    image, label = transform(example, rng)
    assert np.array_equal(image, np.flip(example.image, axis))
    assert np.array_equal(label, np.flip(example.label, axis))


def test_stretch_shows_the_whole_picture():
    label = np.zeros((40, 40), np.uint8)
    label[:20, :20], label[:20, 20:], label[20:, :20], label[20:, 20:] = 10, 20, 30, 40
    result = TrainTransform((10, 20), resize="stretch", **STILL)(
        painted(label), np.random.default_rng(0)
    )
    assert np.array_equal(result.label, np.kron([[10, 20], [30, 40]], np.ones((5, 10))))


def test_nearest_label_is_that_of_the_pixel_centre():
    """On a ramp, the label is within half a source pixel of the interpolated picture."""
    example = painted(np.tile(np.arange(120, dtype=np.uint8), (4, 1)))
    image, label = EvalTransform((4, 32))(example)
    assert np.abs(image[..., 0].astype(int) - label).max() <= 1


@pytest.mark.parametrize(
    ("shape", "options", "seen"),
    [
        ((480, 640), {"base_size": (2048, 512)}, (512, 683)),
        ((640, 480), {"base_size": (512, 2048)}, (683, 512)),
        ((100, 1000), {"base_size": (2048, 512)}, (205, 2048)),
        ((480, 640), {"base_size": (2048, 512), "multiple": 32}, (512, 704)),
        ((512, 513), {"multiple": 32}, (512, 544)),
        ((512, 513), {}, (512, 513)),
        ((480, 640), {"size": (5, 6)}, (5, 6)),
    ],
)
def test_size_at_which_a_picture_is_seen(shape, options, seen):
    assert EvalTransform(**options).seen_size(shape) == seen


def test_a_fitted_picture_keeps_its_label_map(rng):
    example = painted(rng.integers(0, 200, (30, 40), np.uint8))
    image, label = EvalTransform(base_size=(80, 20), multiple=4)(example)
    assert label is example.label
    assert np.array_equal(image, cv2.resize(example.image, (28, 20)))


@pytest.mark.parametrize(
    "options",
    [{"size": (4, 4), "multiple": 2}, {"base_size": (0, 4)}, {"multiple": 0}],
)
def test_evaluation_sizes_that_do_not_fit(options):
    with pytest.raises(ConfigError, match="size|multiple"):
        EvalTransform(**options)


def jittered(image: np.ndarray, **kinds: float) -> np.ndarray:
    """All results of 20 draws of one kind of jitter, (20, H, W, 3)."""
    order = ("brightness", "contrast", "saturation", "hue")
    transform = TrainTransform(
        image.shape[:2],
        scale=(1, 1),
        **(STILL | {"color_jitter": tuple(kinds.get(kind, 0) for kind in order)}),
    )
    example = Example(image, np.zeros(image.shape[:2], np.uint8))
    return np.stack([transform(example, np.random.default_rng(s)).image for s in range(20)])


def test_brightness_scales_all_channels():
    results = jittered(np.full((2, 2, 3), (50, 100, 120), np.uint8), brightness=0.5)[:, 0, 0]
    assert results[:, 1].min() < 65 and results[:, 1].max() > 135
    np.testing.assert_allclose(results[:, 0], results[:, 1] / 2, atol=1)
    np.testing.assert_allclose(results[:, 2], results[:, 1] * 1.2, atol=1.2)


def test_contrast_keeps_the_mean_and_scales_differences():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0], image[1] = 90, 110
    results = jittered(image, contrast=0.8).astype(int)[..., 0]
    np.testing.assert_allclose(results.mean(axis=(1, 2)), 100, atol=1)
    spread = results[:, 1, 0] - results[:, 0, 0]
    assert spread.min() < 14 and spread.max() > 30


def test_saturation_leaves_grey_alone_and_moves_colours():
    image = np.full((1, 2, 3), 80, np.uint8)
    image[0, 1] = (120, 80, 60)
    results = jittered(image, saturation=0.9).astype(int)
    assert np.abs(results[:, 0, 0] - 80).max() <= 1
    assert np.ptp(results[:, 0, 1, 0]) > 30


def test_hue_turns_colours_and_leaves_grey_alone():
    image = np.full((1, 2, 3), 80, np.uint8)
    image[0, 1] = (200, 40, 40)
    results = jittered(image, hue=0.5).astype(int)
    assert np.abs(results[:, 0, 0] - 80).max() <= 1
    np.testing.assert_allclose(results[:, 0, 1].max(axis=-1), 200, atol=2)
    assert {int(pixel.argmax()) for pixel in results[:, 0, 1]} == {0, 1, 2}


def test_eval_leaves_the_example_untouched(blocks):
    assert EvalTransform()(blocks) is blocks


def test_eval_stretches(blocks):
    image, label = EvalTransform((33, 44))(blocks)
    assert image.shape == (33, 44, 3) and label.shape == (33, 44)
    assert set(np.unique(label)) <= set(np.unique(blocks.label))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": (0, 10)}, r"image size \(0, 10\).*at least 1 pixel"),
        ({"scale": (2.0, 0.5)}, r"scale \(2.0, 0.5\).*0 < lowest <= highest"),
        ({"hflip": 1.5}, "hflip 1.5.*0 to 1"),
        ({"color_jitter": (0, 0, 0, 0.6)}, r"color_jitter \(0, 0, 0, 0.6\).*hue from 0 to 0.5"),
        ({"resize": "squash"}, "'squash': use crop or stretch"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ConfigError, match=message):
        TrainTransform(**({"image_size": (8, 8)} | arguments))


def test_source_arrays_are_not_written_to(blocks):
    before = blocks.image.copy()
    transform = TrainTransform(blocks.label.shape, resize="stretch", color_jitter=(1, 1, 1, 0.5))
    transform(blocks, np.random.default_rng(0))
    assert np.array_equal(blocks.image, before)
