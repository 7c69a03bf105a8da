"""Each kind of folder once, as it was reported: read right, with a word about it, or refused."""

import numpy as np
import pytest
from folder_maker import (
    COLOURS,
    Folder,
    painted,
    same,
    three_channels,
    white,
)
from PIL import Image

GAPS = np.array([7, 26], np.uint8)
LABELMAP = (
    "# label:color_rgb:parts:actions",
    "background:0,0,0::",
    "road:230,25,75::",
    "car:60,180,75::",
)


# Values


def test_black_and_white_are_two_classes(folder: Folder):
    folder.classes("bg", "fg")
    folder.pairs(white, classes=2)
    folder.reads("bg", "fg", says=[("255", "fg")])


def test_black_and_white_in_three_channels(folder: Folder):
    folder.classes("bg", "fg")
    folder.pairs(lambda ids: three_channels(white(ids)), classes=2)
    folder.reads("bg", "fg", says=[("255", "fg")])


def test_black_and_white_by_their_colours(folder: Folder):
    folder.text("classes.txt", "255 255 255 fg", "0 0 0 bg")
    folder.pairs(white, classes=2, truth=lambda ids: 1 - ids)
    folder.reads("fg", "bg")


def test_black_and_white_with_one_class(folder: Folder):
    folder.classes("road")
    folder.pairs(white, classes=2)
    folder.refused("255", "classes.txt")


def test_ids_in_three_channels(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs(three_channels)
    folder.reads("a", "b", "c")


def test_ids_in_red(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs(lambda ids: np.dstack((ids, 0 * ids, 0 * ids)))
    folder.reads("a", "b", "c")


def test_an_empty_grey_mask_before_those_in_colour(folder: Folder):
    folder.colours("bg", "road", "car")
    folder.pairs(np.zeros_like, truth=np.zeros_like, numbers=[0])
    folder.pairs(painted, numbers=range(1, 5))
    folder.reads("bg", "road", "car")


def test_a_palette_of_its_own_in_each_file(folder: Folder):
    def quantised(ids):
        return Image.fromarray(painted(ids)).quantize(len(np.unique(ids)))

    def without_road(ids):
        return np.where(ids == 1, 2, ids)

    folder.colours("bg", "road", "car")
    folder.pairs(quantised, numbers=[0, 2, 4])
    folder.pairs(lambda ids: quantised(without_road(ids)), truth=without_road, numbers=[1, 3])
    folder.reads("bg", "road", "car")


def test_ids_with_gaps(folder: Folder):
    folder.json("classes.json", [{"name": "road", "ids": [7]}, {"name": "car", "ids": [26]}])
    folder.pairs(lambda ids: GAPS[ids], classes=2)
    folder.reads("road", "car")


def test_ids_with_gaps_that_nothing_explains(folder: Folder):
    folder.classes("road", "car")
    folder.pairs(lambda ids: GAPS[ids], classes=2)
    folder.refused("7", "26", '"ids"')


def test_ids_that_are_merged(folder: Folder):
    entries = [{"name": "ground", "ids": [0, 1]}, {"name": "car", "ids": [2]}]
    folder.json("classes.json", {"classes": entries})
    folder.pairs(truth=lambda ids: ids // 2)
    folder.reads("ground", "car")


def test_ids_from_one(folder: Folder):
    entries = [{"name": "a", "ids": [1]}, {"name": "b", "ids": [2]}]
    folder.json("classes.json", {"classes": entries, "ignore": [0]})
    folder.pairs(truth=lambda ids: np.array([255, 0, 1])[ids])
    folder.reads("a", "b")


def test_ids_from_one_that_nothing_explains(folder: Folder):
    folder.classes("a", "b")
    folder.pairs()
    folder.refused("2", '"ids"')


def test_a_class_without_pixels(folder: Folder):
    folder.classes("a", "b", "c", "d")
    folder.pairs()
    folder.reads("a", "b", "c", "d", says=["no pixels: d"])


def test_nearly_the_colours(folder: Folder):
    def noisy(ids):
        noise = np.random.default_rng(3).integers(-9, 10, (*ids.shape, 3))
        return np.clip(COLOURS[ids] + noise, 0, 255).astype(np.uint8)

    folder.colours("bg", "road", "car", match="nearest")
    folder.pairs(noisy)
    folder.reads("bg", "road", "car")


# Names and places


@pytest.mark.parametrize("word", ["valid", "validation"])
def test_the_second_split(folder: Folder, word):
    folder.classes("a", "b", "c")
    for split, place, count in (("train", "train", 4), ("val", word, 2)):
        places = {"photos": place + "/images/p{}.png", "masks": place + "/masks/p{}.png"}
        folder.pairs(**places, numbers=range(count), split=split)
    folder.reads("a", "b", "c")


def test_training_and_validation_below_images(folder: Folder):
    folder.classes("a", "b", "c")
    for split, place, count in (("train", "training", 4), ("val", "validation", 2)):
        places = {"photos": f"images/{place}/p{{}}.png", "masks": f"masks/{place}/p{{}}.png"}
        folder.pairs(**places, numbers=range(count), split=split)
    folder.reads("a", "b", "c")


def test_a_tail_of_the_mask_names(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs(masks="masks/p{}_mask.png")
    folder.reads("a", "b", "c", says=["_mask"])


@pytest.mark.parametrize("ending", ["tif", "webp"])
def test_endings_of_photos(folder: Folder, ending):
    folder.classes("a", "b", "c")
    folder.pairs(photos=f"images/p{{}}.{ending}")
    folder.reads("a", "b", "c")


def test_masks_in_tiff(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs(masks="masks/p{}.tif")
    folder.reads("a", "b", "c")


def test_names_in_another_case(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs(photos="images/p{}.jpg", masks="masks/P{}.PNG")
    folder.reads("a", "b", "c")


def test_pascal_voc(folder: Folder):
    folder.classes("a", "b", "c")
    folder.voc(same)
    folder.reads("a", "b", "c")


def test_cvat(folder: Folder):
    folder.text("labelmap.txt", *LABELMAP)
    folder.voc(painted)
    folder.reads("background", "road", "car")


def test_cvat_as_it_is_downloaded(folder: Folder):
    folder.text("labelmap.txt", *LABELMAP)
    folder.voc(painted)
    folder.pack("export.zip")
    folder.reads("background", "road", "car")


def test_roboflow(folder: Folder):
    for split, place, count in (("train", "train", 4), ("val", "valid", 2)):
        folder.text(f"{place}/_classes.csv", "Pixel Value, Class", "0, bg", "1, road", "2, car")
        places = {"photos": f"{place}/p{{}}.jpg", "masks": f"{place}/p{{}}_mask.png"}
        folder.pairs(**places, numbers=range(count), split=split)
    folder.reads("bg", "road", "car")


def test_every_fifth_validates(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs()
    folder.reads("a", "b", "c", says=["fifth"])


def test_photos_without_masks(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs(numbers=range(3))
    folder.pairs(masks=None, numbers=range(3, 9))
    folder.refused("6", "missing-mask")
