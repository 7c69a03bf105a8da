import numpy as np
import pytest

from flaxseg.errors import ConfigError, DataError
from flaxseg.labels import IGNORE, LabelSet
from flaxseg.pictures import (
    batch_sheet,
    colorize,
    contact_sheet,
    example_sheet,
    overlay,
    with_legend,
)
from flaxseg.pictures.bars import Column, bar_sheet

PALETTE = ((200, 0, 0), (0, 200, 0), (0, 0, 200))
LABELS = LabelSet("toys", ("car", "tree", "sky"), PALETTE)


def has_color(picture, color):
    return bool((picture == np.uint8(color)).all(axis=-1).any())


def test_colorize_paints_classes_and_leaves_ignored_pixels_black():
    picture = colorize(np.array([[0, 2], [IGNORE, 1]]), PALETTE)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, [[PALETTE[0], PALETTE[2]], [(0, 0, 0), PALETTE[1]]])


@pytest.mark.parametrize("wrong", [3, 254, -1, 256])
def test_an_id_without_colour_is_named(wrong):
    with pytest.raises(DataError, match=f"label {wrong} is outside 0 to 2 and is not 255"):
        colorize(np.array([[0, wrong]]), PALETTE)


@pytest.mark.parametrize("label", [np.zeros((2, 2)), np.zeros((2, 2, 3), np.uint8)])
def test_what_is_no_label_map_is_named(label):
    with pytest.raises(DataError, match=r"a label map is \(H, W\) whole numbers, found \(2, 2"):
        colorize(label, PALETTE)


def test_overlay_blends_and_keeps_the_photo_where_nothing_is_known():
    image = np.full((1, 3, 3), 100, np.uint8)
    label = np.array([[0, 1, IGNORE]], np.uint8)
    np.testing.assert_array_equal(
        overlay(image, label, LABELS, 0.25), [[[125, 75, 75], [75, 125, 75], [100, 100, 100]]]
    )
    np.testing.assert_array_equal(overlay(image, label, LABELS, 0.0), image)
    np.testing.assert_array_equal(overlay(image, label, LABELS, 1.0)[0, 0], PALETTE[0])


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ConfigError, match=f"alpha is {alpha}, it must be from 0 to 1"):
        overlay(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8), LABELS, alpha)


def test_photo_and_label_map_of_different_sizes_are_refused():
    image, label = np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2), np.uint8)
    message = r"photo \(2, 3, 3\) and label map \(3, 2\) do not fit"
    with pytest.raises(DataError, match=message):
        overlay(image, label, LABELS)
    with pytest.raises(DataError, match=message):
        contact_sheet([image], [label], [label], LABELS)


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (300, 400), (40, 900)])
def test_the_legend_leaves_the_picture_as_it_is(size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    label = np.full(size, 2, np.uint8)
    sheet = with_legend(picture, label, LABELS)
    np.testing.assert_array_equal(sheet[: size[0], : size[1]], picture)
    below = sheet[size[0] :]
    assert has_color(below, PALETTE[2])
    assert not has_color(below, PALETTE[0])


def test_the_legend_grows_with_the_photo():
    def height(side):
        label = np.zeros((side, side), np.uint8)
        return len(with_legend(colorize(label, PALETTE), label, LABELS)) - side

    assert 16 <= height(64) == height(480) < height(2000) < 200


def test_a_long_class_name_widens_the_legend():
    labels = LabelSet("toys", ("a class with quite a long name",), PALETTE[:1])
    label = np.zeros((8, 8), np.uint8)
    assert with_legend(colorize(label, PALETTE), label, labels).shape[1] > 150


def test_a_picture_without_classes_has_no_legend():
    label = np.full((4, 4), IGNORE, np.uint8)
    picture = colorize(label, PALETTE)
    np.testing.assert_array_equal(with_legend(picture, label, LABELS), picture)


def sheet_of(size, rows=2, **options):
    image = np.full((*size, 3), 7, np.uint8)
    truth, prediction = np.full(size, IGNORE, np.uint8), np.full(size, 1, np.uint8)
    truth[:, : size[1] // 2] = 0
    return contact_sheet([image] * rows, [truth] * rows, [prediction] * rows, LABELS, **options)


def test_a_sheet_shows_photo_truth_and_prediction():
    sheet = sheet_of((200, 300))
    thirds = np.array_split(sheet[40:220], 3, axis=1)
    for third, color in zip(thirds, [(7, 7, 7), PALETTE[0], PALETTE[1]], strict=True):
        assert has_color(third, color)
    assert not has_color(sheet, PALETTE[2])
    # Hatched: a class may be black too.
    assert has_color(thirds[1], (0, 0, 0)) and has_color(thirds[1], (255, 255, 255))


@pytest.mark.parametrize(
    ("size", "tile"), [((64, 64), 192), ((1, 1), 160), ((200, 300), 300), ((3000, 4000), 480)]
)
def test_small_pictures_are_enlarged_and_large_ones_reduced(size, tile):
    widths = (sheet_of(size) == 7).all(axis=-1).sum(axis=1)
    assert widths.max() == tile


def test_captions_take_a_line_each():
    plain, captioned = sheet_of((64, 64)), sheet_of((64, 64), captions=["first", "second"])
    assert captioned.shape[0] > plain.shape[0] + 2 * 16


def test_lists_of_different_length_are_refused():
    image, label = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)
    with pytest.raises(DataError, match=r"as many photos as label maps, found \[2, 1, 1\]"):
        contact_sheet([image] * 2, [label], [label], LABELS)
    with pytest.raises(DataError, match=r"found \[0, 0, 0\]"):
        contact_sheet([], [], [], LABELS)
    with pytest.raises(DataError, match=r"found \[1, 1, 1, 2\]"):
        contact_sheet([image], [label], [label], LABELS, captions=["a", "b"])


def examples_of(*sizes):
    images = [np.full((*size, 3), 7, np.uint8) for size in sizes]
    truths = [np.full(size, i % 3, np.uint8) for i, size in enumerate(sizes)]
    return example_sheet(images, truths, LABELS, captions=[str(i) for i, _ in enumerate(sizes)])


def test_examples_stand_beside_their_overlays():
    sheet = examples_of((40, 60))
    photo = (sheet == 7).all(axis=-1)
    assert photo.sum() == 160 * 240  # enlarged to 240 pixels
    blend = (sheet == np.round(0.35 * 7 + 0.65 * np.array(PALETTE[0]))).all(axis=-1)
    assert blend.sum() == 160 * 240
    assert np.argwhere(blend)[:, 1].min() > np.argwhere(photo)[:, 1].max()
    assert has_color(sheet[-40:], PALETTE[0]) and not has_color(sheet, PALETTE[1])


def test_examples_of_many_sizes_fill_a_grid():
    one, many = examples_of((40, 60)), examples_of(*[(40, 60), (90, 30), (500, 900)] * 3)
    assert many.shape[1] > 1.9 * one.shape[1]
    for color in PALETTE:
        assert has_color(many, color)


def test_examples_without_captions_are_refused():
    with pytest.raises(DataError, match=r"found \[1, 1, 0\]"):
        example_sheet([np.zeros((2, 2, 3), np.uint8)], [np.zeros((2, 2))], LABELS, captions=[])


@pytest.mark.parametrize("side", [16, 100, 512])
def test_a_batch_is_shown_pixel_by_pixel_and_hatched_where_it_is_ignored(side):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    truths = np.zeros((1, side, side), np.uint8)
    truths[:, :, side // 2 :] = IGNORE
    sheet = batch_sheet(images, truths, LABELS, captions=["one"], title="a batch")
    shown = max(256 // side, 1) * side if side <= 256 else 256
    photo, blend = (sheet[48 : 48 + shown, left : left + shown] for left in (8, 16 + shown))
    if side <= 256:
        step = shown // side
        np.testing.assert_array_equal(photo[::step, ::step], images[0])
        known = overlay(images[0], truths[0], LABELS, 0.65)[:, : side // 2]
        np.testing.assert_array_equal(blend[::step, ::step][:, : side // 2], known)
    ignored = blend[:, shown // 2 :]
    for color in ((0, 0, 0), (255, 255, 255)):
        assert 0.2 < (ignored == color).all(-1).mean() < 0.3
    assert has_color(sheet[-34:], PALETTE[0])
    # So is the swatch of "ignored", of 15 by 15 pixels within its frame; a solid one had 225.
    assert 40 < (sheet[-34:] == 0).all(-1).sum() < 80


def test_bars_are_as_long_as_their_numbers():
    lengths = np.array([1.0, 0.25, 0.0])
    sheet = bar_sheet(LABELS, [Column("share", lengths, ["all", "some", "none"])], ["a title"])
    swatch = 15 * 15
    for color, length in zip(PALETTE, lengths, strict=True):
        area = (sheet == color).all(-1).sum() - swatch
        assert abs(area - 260 * 15 * length) <= 0.02 * 260 * 15, color
