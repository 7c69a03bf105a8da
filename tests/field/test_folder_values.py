"""What stands in masks: other tools' and people's habits of each kind."""

import numpy as np
import pytest
from folder_maker import (
    BLOCK,
    COLOURS,
    VOC_PALETTE,
    Folder,
    nearest,
    opaque,
    painted,
    three_channels,
    white,
    with_palette,
)
from PIL import Image

BLACK_AND_WHITE = [{"name": "bg", "color": [0, 0, 0]}, {"name": "fg", "color": [255, 255, 255]}]


def enlarged(ids: np.ndarray) -> np.ndarray:
    """Painted small and enlarged with smoothing, as most photo programs do it."""
    small = Image.fromarray(painted(ids[::BLOCK, ::BLOCK]))
    return np.asarray(small.resize(ids.shape[::-1], Image.Resampling.BILINEAR))


# Two classes in black and white


def test_one_bit_masks_hold_ids(folder: Folder):
    folder.classes("bg", "fg")
    folder.pairs(lambda ids: Image.fromarray(white(ids)).convert("1"), classes=2)
    folder.reads("bg", "fg")


def test_black_and_white_rgb_by_the_colours_of_json(folder: Folder):
    folder.json("classes.json", BLACK_AND_WHITE)
    folder.pairs(lambda ids: three_channels(white(ids)), classes=2)
    folder.reads("bg", "fg")


def test_black_and_white_with_an_opaque_alpha_channel(folder: Folder):
    folder.classes("bg", "fg")
    folder.pairs(lambda ids: opaque(three_channels(white(ids))), classes=2)
    folder.reads("bg", "fg", says=[("255", "fg")])


def test_palette_masks_of_0_and_255(folder: Folder):
    folder.classes("bg", "fg")
    grey = [(value,) * 3 for value in range(256)]
    folder.pairs(lambda ids: with_palette(white(ids), grey), classes=2)
    folder.reads("bg", "fg", says=[("255", "fg")])


def test_photos_of_background_alone_beside_black_and_white(folder: Folder):
    folder.classes("bg", "fg")
    folder.pairs(np.zeros_like, truth=np.zeros_like, numbers=[0, 1, 2])
    folder.pairs(white, classes=2, numbers=[3, 4])
    folder.reads("bg", "fg", says=[("255", "fg")])


def test_one_file_with_an_id_between_makes_255_unlabelled(folder: Folder):
    """Most files hold 0 and 255 alone, but one holds a 1."""
    folder.classes("bg", "fg")
    folder.pairs(white, truth=white, classes=2, numbers=[0, 1, 2, 4])
    unlabelled = np.array([0, 1, 255], np.uint8)
    folder.pairs(lambda ids: unlabelled[ids], truth=lambda ids: unlabelled[ids], numbers=[3])
    folder.reads("bg", "fg")


def test_unlabelled_is_white_where_there_are_three_classes(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs(white, truth=white, classes=2)
    folder.reads("a", "b", "c", says=[("no pixels:", "b"), ("no pixels:", "c")])


def test_white_is_unlabelled_where_the_class_file_says_so(folder: Folder):
    folder.json("classes.json", {"classes": ["bg", "fg"], "ignore": [255]})
    folder.pairs(white, truth=white, classes=2)
    folder.reads("bg", "fg", says=["no pixels: fg"])


def test_white_by_its_id(folder: Folder):
    folder.json("classes.json", [{"name": "bg", "ids": [0]}, {"name": "fg", "ids": [255]}])
    folder.pairs(white, classes=2)
    folder.reads("bg", "fg")


def test_black_and_white_rgb_with_one_class_in_json(folder: Folder):
    folder.json("classes.json", [{"name": "crack"}])
    folder.pairs(lambda ids: three_channels(white(ids)), classes=2)
    folder.refused("255", "classes.json")


# Ids in several channels


def test_ids_beside_an_opaque_alpha_channel(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs(lambda ids: opaque(three_channels(ids)), numbers=[0, 1])
    folder.pairs(opaque, numbers=[2, 3, 4])
    folder.reads("a", "b", "c")


def test_unlabelled_in_three_channels(folder: Folder):
    folder.classes("a", "b")
    unlabelled = np.array([0, 1, 255], np.uint8)
    folder.pairs(lambda ids: three_channels(unlabelled[ids]), truth=lambda ids: unlabelled[ids])
    folder.reads("a", "b")


def test_numbers_with_gaps_in_three_channels(folder: Folder):
    folder.json("classes.json", [{"name": "road", "ids": [7]}, {"name": "car", "ids": [26]}])
    gaps = np.array([7, 26], np.uint8)
    folder.pairs(lambda ids: three_channels(gaps[ids]), classes=2)
    folder.reads("road", "car")


def test_colours_are_no_ids(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs(painted)
    folder.refused("classes.txt", "colour")


# Ids with gaps, from one, wide, merged


def test_sixteen_bits(folder: Folder):
    entries = [{"name": "road", "ids": [7000, 7001]}, {"name": "car", "ids": [26000]}]
    folder.json("classes.json", {"classes": entries, "ignore": [65535]})
    values = np.array([7000, 26000, 65535, 7001], np.uint16)
    right = np.array([0, 1, 255, 0], np.uint8)
    folder.pairs(lambda ids: values[ids], truth=lambda ids: right[ids], classes=4)
    folder.reads("road", "car")


def test_ids_for_the_masks_and_colours_to_draw_with(folder: Folder):
    """Grey masks are read by `ids`; `color` is what a class is drawn in."""
    names = (("road", 7, [128, 64, 128]), ("car", 26, [0, 0, 142]))
    entries = [{"name": name, "ids": [value], "color": colour} for name, value, colour in names]
    folder.json("classes.json", entries)
    gaps = np.array([7, 26], np.uint8)
    folder.pairs(lambda ids: gaps[ids], classes=2)
    folder.reads("road", "car")


def test_classes_of_several_colours(folder: Folder):
    entries = [
        {"name": "ground", "color": [0, 0, 0]},
        {"name": "vehicle", "colors": COLOURS[1:].tolist()},
    ]
    folder.json("classes.json", entries)
    folder.pairs(painted, truth=lambda ids: np.minimum(ids, 1))
    folder.reads("ground", "vehicle")


def test_255_stays_unlabelled_beside_ids(folder: Folder):
    folder.json("classes.json", [{"name": "a", "ids": [1]}, {"name": "b", "ids": [2]}])
    values, right = np.array([1, 2, 255], np.uint8), np.array([0, 1, 255], np.uint8)
    folder.pairs(lambda ids: values[ids], truth=lambda ids: right[ids])
    folder.reads("a", "b")


def test_an_id_that_no_class_has(folder: Folder):
    folder.json("classes.json", [{"name": "a", "ids": [1]}, {"name": "b", "ids": [2]}])
    folder.pairs()
    folder.refused("0", "p0.png", '"ignore"')


def test_an_id_of_two_classes(folder: Folder):
    folder.json("classes.json", [{"name": "sky", "ids": [0, 1]}, {"name": "sea", "ids": [1, 2]}])
    folder.pairs()
    folder.refused("1", "sky", "sea", "classes.json")


# Palettes


def test_indices_count_where_the_class_file_gives_names_alone(folder: Folder):
    folder.classes("bg", "aeroplane", "bicycle")
    folder.pairs(lambda ids: with_palette(ids, VOC_PALETTE))
    folder.reads("bg", "aeroplane", "bicycle")


def test_palettes_in_an_order_of_their_own(folder: Folder):
    """As `convert -colors`, GIMP and pngquant sort them."""
    folder.text("label_colors.txt", "0 0 0 bg", "230 25 75 road", "60 180 75 car")
    for number, order in enumerate(([2, 1, 0], [1, 2, 0], [0, 2, 1], [0, 1, 2], [2, 0, 1])):
        place = np.argsort(order).astype(np.uint8)
        folder.pairs(
            lambda ids, place=place, order=order: with_palette(place[ids], COLOURS[order]),
            numbers=[number],
        )
    folder.reads("bg", "road", "car")


def test_a_palette_with_a_colour_of_no_class(folder: Folder):
    folder.colours("bg", "road")
    folder.pairs(lambda ids: with_palette(ids, [(0, 0, 0), (230, 25, 75), (10, 20, 30)]))
    folder.refused("10, 20, 30", "classes.json")


# Masks of several modes


def test_every_mode_by_its_colours(folder: Folder):
    folder.colours("bg", "road", "car")
    folder.pairs(lambda ids: opaque(painted(ids)), numbers=[0])
    folder.pairs(lambda ids: with_palette(ids, COLOURS), numbers=[1])
    folder.pairs(painted, numbers=[2])
    folder.pairs(lambda ids: Image.new("1", ids.shape[::-1]), truth=np.zeros_like, numbers=[3])
    folder.pairs(np.zeros_like, truth=np.zeros_like, numbers=[4])
    folder.reads("bg", "road", "car")


def test_every_mode_by_its_ids(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs(numbers=[0])
    folder.pairs(three_channels, numbers=[1])
    folder.pairs(lambda ids: with_palette(ids, VOC_PALETTE), numbers=[2])
    folder.pairs(lambda ids: ids.astype(np.uint16), numbers=[3])
    folder.pairs(opaque, numbers=[4])
    folder.reads("a", "b", "c")


def test_grey_colours_in_a_grey_file(folder: Folder):
    """A mask whose classes are all grey is often saved without its colour."""
    table = np.array([(64, 64, 64), (200, 200, 200), (230, 25, 75)], np.uint8)
    names = zip(("wall", "floor", "door"), table.tolist(), strict=True)
    folder.json("classes.json", [{"name": name, "color": colour} for name, colour in names])
    folder.pairs(lambda ids: table[ids], numbers=[0, 1, 2, 4])
    folder.pairs(lambda ids: table[ids][..., 0], classes=2, numbers=[3])
    folder.reads("wall", "floor", "door")


def test_an_empty_grey_mask_where_black_is_not_the_first_class(folder: Folder):
    """By its colour it is background, as id 0 it would be road: never the latter."""
    entries = [("road", [230, 25, 75]), ("car", [60, 180, 75]), ("bg", [0, 0, 0])]
    folder.json("classes.json", [{"name": name, "color": colour} for name, colour in entries])
    right = np.array([2, 0, 1], np.uint8)
    folder.pairs(painted, truth=lambda ids: right[ids], numbers=[0, 1, 2, 4])
    folder.pairs(np.zeros_like, truth=lambda ids: np.full_like(ids, 2), numbers=[3])
    folder.reads("road", "car", "bg", or_refused=["p3.png"])


# Colours that are nearly right


def test_smoothed_edges_are_refused_with_their_share(folder: Folder):
    folder.colours("bg", "road", "car")
    folder.pairs(enlarged)
    folder.refused("%", '"match": "nearest"')


def test_smoothed_edges_by_the_nearest_colour(folder: Folder):
    folder.colours("bg", "road", "car", match="nearest")
    folder.pairs(enlarged, truth=lambda ids: nearest(enlarged(ids)))
    folder.reads("bg", "road", "car")


@pytest.mark.parametrize("match", ["", "nearest"])
def test_jpeg_masks(folder: Folder, match):
    folder.colours("bg", "road", "car", **({"match": match} if match else {}))
    folder.pairs(painted, masks="masks/p{}.jpg", quality=92, subsampling=0)
    if match:
        folder.reads("bg", "road", "car")
    else:
        folder.refused("%", '"match": "nearest"')


def test_black_and_white_jpeg(folder: Folder):
    folder.json("classes.json", {"classes": BLACK_AND_WHITE, "match": "nearest"})

    def grey(ids):
        return (ids * np.uint8(245) + np.uint8(5)).astype(np.uint8)

    folder.pairs(grey, classes=2, masks="masks/p{}.jpg", quality=75)
    folder.reads("bg", "fg")


def test_black_and_white_jpeg_without_colours(folder: Folder):
    """Values beside 0 and 255 are no ids; what would help is named."""
    folder.classes("bg", "fg")
    folder.pairs(lambda ids: ids * np.uint8(245) + np.uint8(5), classes=2, masks="masks/p{}.jpg")
    folder.refused("nearest")


def test_nearest_needs_colours(folder: Folder):
    folder.json("classes.json", {"classes": ["a", "b", "c"], "match": "nearest"})
    folder.pairs()
    folder.refused("match", "color")


def test_another_word_for_the_match(folder: Folder):
    folder.colours("bg", "road", "car", match="closest")
    folder.pairs(painted)
    folder.refused("closest", "nearest")


# Classes without any pixel


def test_names_that_look_like_markup(folder: Folder):
    folder.classes("a", "b", "c", "[red]", "d [old]")
    folder.pairs()
    folder.reads(
        *("a", "b", "c", "[red]", "d [old]"),
        says=[("no pixels:", "[red]"), ("no pixels:", "d [old]")],
    )


def test_a_painted_class_without_pixels(folder: Folder):
    folder.colours("bg", "road", "car")
    folder.pairs(painted, classes=2)
    folder.reads("bg", "road", "car", says=["no pixels: car"])


def test_a_name_is_called_without_pixels_only_where_it_has_none(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs()
    folder.reads("a", "b", "c")
    _, out, _ = folder.check({})
    assert "no pixels" not in out
