"""Where files lie and what they are called: other tools' and people's habits of each kind."""

import numpy as np
import pytest
from coco_maker import coco, packed_runs, polygon, runs
from folder_maker import (
    VOC_PALETTE,
    Folder,
    painted,
    white,
    with_palette,
)
from PIL import Image

LABELMAP = ("# label:color_rgb:parts:actions", "background:0,0,0::", "road:230,25,75::")
CATEGORIES = ((1, "cat"), (2, "dog"))


# Splits


@pytest.mark.parametrize("form", ["{split}/{kind}", "{kind}/{split}"])
@pytest.mark.parametrize(
    "words", [("Train", "Val", "TEST"), ("TRAINING", "Validation", "Testing"), ("train", "dev")]
)
def test_words_for_the_splits(folder: Folder, form, words):
    folder.classes("a", "b", "c")
    for split, word, count in zip(("train", "val", "test"), words, (3, 2, 1), strict=False):
        kinds = {"photos": "images", "masks": "masks"}
        places = {k: form.format(split=word, kind=v) + "/p{}.png" for k, v in kinds.items()}
        folder.pairs(**places, numbers=range(count), split=split)
    folder.reads("a", "b", "c", or_refused=["val split"] if "dev" in words else ())


def test_two_folders_for_one_split(folder: Folder):
    folder.classes("a", "b", "c")
    for place in ("train", "val", "valid"):
        folder.pairs(photos=place + "/images/p{}.png", masks=place + "/masks/p{}.png")
    folder.refused("valid")


def test_images_and_masks_with_capitals(folder: Folder):
    folder.classes("a", "b", "c")
    for split, place, count in (("train", "Train", 3), ("val", "Val", 2)):
        places = {"photos": place + "/Images/p{}.png", "masks": place + "/Masks/p{}.png"}
        folder.pairs(**places, numbers=range(count), split=split)
    folder.reads("a", "b", "c")


# Tails of names


@pytest.mark.parametrize("tail", ["_seg", "-labels", "_L", " (mask)"])
def test_tails_of_masks(folder: Folder, tail):
    folder.classes("a", "b", "c")
    folder.pairs(masks=f"masks/p{{}}{tail}.png")
    folder.reads("a", "b", "c", says=[tail])


def test_tails_of_photos_and_masks(folder: Folder):
    """Cityscapes' names in folders of one's own."""
    folder.classes("a", "b", "c")
    folder.pairs(photos="images/ulm_{}_leftImg8bit.png", masks="masks/ulm_{}_gtFine_labelIds.png")
    folder.reads("a", "b", "c", says=[("_leftImg8bit", "_gtFine_labelIds")])


@pytest.mark.parametrize("place", ["images/", ""])
def test_masks_beside_the_photos(folder: Folder, place):
    folder.classes("a", "b", "c")
    folder.pairs(photos=place + "p{}.jpg", masks=place + "p{}_mask.png")
    folder.reads("a", "b", "c", says=["_mask"])


def test_a_photo_without_mask_among_tails(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs(masks="masks/p{}_mask.png", numbers=range(5))
    folder.photo("images/p5.png")
    folder.refused("1", "p5.png")


def test_numbers_are_no_tails(folder: Folder):
    """1.png belongs to 1.png and 11.png to 11.png, though 11 ends in 1."""
    folder.classes("a", "b", "c")
    folder.pairs(photos="images/{}.png", masks="masks/{}_1.png", numbers=[1, 11, 2, 21, 3])
    folder.reads("a", "b", "c", says=["_1"])


def test_names_that_differ_in_case_alone(folder: Folder):
    """Where the file system keeps both apart, each has the partner of its own case."""
    folder.classes("a", "b", "c")
    folder.pairs(photos="images/p{}.png", masks="masks/p{}.png", numbers=range(3))
    folder.pairs(photos="images/P{}.png", masks="masks/P{}.png", numbers=range(3))
    folder.reads("a", "b", "c")


# Picture files


@pytest.mark.parametrize(
    ("photo", "mask"),
    [("bmp", "bmp"), ("TIFF", "TIF"), ("JPG", "PNG"), ("webp", "tiff")],
)
def test_endings(folder: Folder, photo, mask):
    folder.classes("a", "b", "c")
    folder.pairs(photos=f"images/p{{}}.{photo}", masks=f"masks/p{{}}.{mask}")
    folder.reads("a", "b", "c")


def test_tiff_as_geographers_write_it(folder: Folder):
    """Compressed, in palettes and of 16 bits."""
    folder.classes("a", "b", "c")
    places = {"photos": "images/p{}.tif", "masks": "masks/p{}.tif"}
    folder.pairs(**places, numbers=[0], compression="tiff_lzw")
    folder.pairs(**places, numbers=[1], compression="tiff_adobe_deflate")
    folder.pairs(lambda ids: with_palette(ids, VOC_PALETTE), **places, numbers=[2])
    folder.pairs(lambda ids: ids.astype(np.uint16), **places, numbers=[3, 4])
    folder.reads("a", "b", "c")


def test_tiff_of_whole_numbers_with_a_point(folder: Folder):
    """QGIS writes classes as float32 where nobody tells it otherwise."""
    folder.classes("a", "b", "c")
    folder.pairs(lambda ids: ids.astype(np.float32), masks="masks/p{}.tif")
    folder.reads("a", "b", "c", or_refused=["p0.tif", "float"])


def test_several_pages_in_a_mask(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs(masks="masks/p{}.tif")
    pages = [Image.fromarray(folder.ids()) for _ in range(2)]
    pages[0].save(folder.file("masks/p3.tif"), save_all=True, append_images=pages[1:])
    folder.refused("p3.tif", "2")


def test_gif_masks_with_a_tail(folder: Folder):
    """As in Kaggle's Carvana: NAME.jpg and NAME_mask.gif in black and white."""
    folder.classes("background", "car")
    folder.pairs(
        lambda ids: Image.fromarray(white(ids)),
        photos="images/p{}.jpg",
        masks="masks/p{}_mask.gif",
        classes=2,
    )
    folder.reads("background", "car", says=[("255", "car")], or_refused=[".gif", "PNG"])


# Lists


def test_lists_of_two_columns(folder: Folder):
    """As PaddleSeg has them: the photo and its mask in each line."""
    folder.classes("a", "b", "c")
    for split, numbers in (("train", range(3)), ("val", (3, 4))):
        folder.pairs(numbers=numbers, split=split)
        folder.text(f"{split}.txt", *(f"images/p{n}.png masks/p{n}.png" for n in numbers))
    folder.reads("a", "b", "c")


def test_lists_from_windows(folder: Folder):
    folder.classes("a", "b", "c")
    for split, numbers in (("train", range(3)), ("val", (3, 4))):
        folder.pairs(numbers=numbers, split=split)
        lines = "\r\n".join(f"images\\p{n}.png" for n in numbers)
        folder.file(f"{split}.txt").write_bytes(f"\ufeff{lines}\r\n\r\n".encode())
    folder.reads("a", "b", "c")


def test_lists_of_voc_beside_folders_of_ones_own(folder: Folder):
    folder.classes("a", "b", "c")
    folder.voc(photos="images/p{}.png", masks="masks/p{}.png")
    folder.reads("a", "b", "c")


def test_voc_without_lists(folder: Folder):
    """CVAT names all photos in default.txt where nobody made subsets."""
    folder.classes("a", "b", "c")
    folder.pairs(photos="JPEGImages/p{}.jpg", masks="SegmentationClass/p{}.png")
    folder.text("ImageSets/Segmentation/default.txt", *(f"p{n}" for n in range(5)))
    folder.reads("a", "b", "c", says=["fifth"])


def test_a_list_that_names_what_is_not_there(folder: Folder):
    folder.classes("a", "b", "c")
    folder.voc()
    folder.text("ImageSets/Segmentation/val.txt", "p3", "p9")
    folder.refused("p9", "val.txt")


# Pascal VOC and CVAT


def test_voc_palettes_with_borders(folder: Folder):
    folder.classes("background", "aeroplane")
    border = np.array([0, 1, 255], np.uint8)
    folder.voc(
        lambda ids: with_palette(border[ids], VOC_PALETTE),
        truth=lambda ids: border[ids],
    )
    folder.reads("background", "aeroplane")


def test_voc_that_names_no_classes(folder: Folder):
    """The benchmark itself, whose 20 classes are known, or a folder of other people's."""
    names = "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    names += "motorbike person pottedplant sheep sofa train tvmonitor"
    folder.voc(lambda ids: with_palette(ids, VOC_PALETTE))
    folder.reads("background", *names.split(), or_refused=["no classes", "classes.txt"])


def test_cvat_in_a_folder_within_the_zip(folder: Folder):
    folder.text("labelmap.txt", *LABELMAP)
    folder.voc(painted, classes=2)
    folder.pack("task 7.zip", top="task_7/")
    folder.reads("background", "road")


def test_the_zip_in_a_folder(folder: Folder):
    folder.text("labelmap.txt", *LABELMAP)
    folder.voc(painted, classes=2)
    folder.pack("downloads.zip")
    downloads = folder.path.parent / "downloads"
    downloads.mkdir()
    folder.data_dir = folder.data_dir.rename(downloads / "downloads.zip").parent
    folder.reads("background", "road", or_refused=["downloads.zip"])


def test_cvat_with_classes_in_another_order_and_from_windows(folder: Folder):
    """Colours decide, not the place; one label is not used."""
    lines = ("# label:color_rgb:parts:actions", "tree:1,2,3::", "road:230,25,75::", LABELMAP[1])
    folder.file("labelmap.txt").write_bytes("\r\n".join(lines).encode())
    right = np.array([2, 1], np.uint8)
    folder.voc(painted, classes=2, truth=lambda ids: right[ids])
    folder.reads("tree", "road", "background", says=["no pixels: tree"])


def test_a_colour_that_the_labelmap_lacks(folder: Folder):
    folder.text("labelmap.txt", *LABELMAP)
    folder.voc(painted)
    folder.refused("60, 180, 75", "labelmap.txt")


def test_a_zip_that_points_out_of_its_folder(folder: Folder):
    folder.text("labelmap.txt", *LABELMAP)
    folder.voc(painted, classes=2)
    folder.pack("export.zip", top="../../")
    folder.refused("export.zip", "outside")


def test_a_zip_that_is_none(folder: Folder):
    folder.text("export.zip", "<!DOCTYPE html>")
    folder.data_dir = folder.path / "export.zip"
    folder.refused("export.zip")


# Roboflow


def test_roboflow_with_a_test_split_from_windows(folder: Folder):
    lines = "\r\n".join(("Pixel Value, Class", "0, background", "1, pot hole", "2, crack", ""))
    for split, place, count in (("train", "train", 3), ("val", "valid", 2), ("test", "test", 1)):
        folder.file(f"{place}/_classes.csv").write_bytes(lines.encode())
        places = {"photos": f"{place}/p{{}}_jpg.rf.0c1.jpg"}
        places["masks"] = f"{place}/p{{}}_jpg.rf.0c1_mask.png"
        folder.pairs(**places, numbers=range(count), split=split)
    folder.text("README.roboflow.txt", "mine - v1")
    folder.reads("background", "pot hole", "crack")


def test_roboflow_as_it_is_downloaded(folder: Folder):
    for split, place, count in (("train", "train", 3), ("val", "valid", 2)):
        folder.text(f"{place}/_classes.csv", "Pixel Value, Class", "0, a", "1, b", "2, c")
        places = {"photos": f"{place}/p{{}}.jpg", "masks": f"{place}/p{{}}_mask.png"}
        folder.pairs(**places, numbers=range(count), split=split)
    folder.pack("mine.v1.png-mask-semantic.zip")
    folder.reads("a", "b", "c")


def test_roboflow_whose_splits_name_other_classes(folder: Folder):
    for place, name in (("train", "road"), ("valid", "car")):
        folder.text(f"{place}/_classes.csv", "Pixel Value, Class", "0, bg", f"1, {name}")
        folder.pairs(photos=f"{place}/p{{}}.jpg", masks=f"{place}/p{{}}_mask.png", classes=2)
    folder.refused("_classes.csv", "road", "car")


# COCO


@pytest.mark.parametrize("shape", [polygon, runs, packed_runs])
def test_coco_of_roboflow(folder: Folder, shape):
    for split, place, count in (("train", "train", 3), ("val", "valid", 2)):
        labels = folder.pairs(
            photos=f"{place}/p{{}}.jpg", masks=None, numbers=range(count), split=split
        )
        content = coco(labels, CATEGORIES, shape, strip=f"{place}/")
        folder.json(f"{place}/_annotations.coco.json", content)
    folder.reads("background", "cat", "dog")


@pytest.mark.parametrize("packed", [False, True])
def test_coco_of_label_studio(folder: Folder, packed):
    """result.json beside images/, no splits, categories that count from 0."""
    labels = folder.pairs(photos="images/p{}.jpg", masks=None)
    folder.json("result.json", coco(labels, ((0, "cat"), (1, "dog"))))
    if packed:
        folder.pack("project-1-at-2026-01-01.zip")
    folder.reads("background", "cat", "dog", says=["fifth"])


def test_coco_of_cvat(folder: Folder):
    labels = folder.pairs(photos="images/p{}.png", masks=None)
    content = coco(labels, CATEGORIES, packed_runs, strip="images/")
    folder.json("annotations/instances_default.json", content)
    folder.reads("background", "cat", "dog", says=["fifth"])


def test_coco_as_it_was_published(folder: Folder):
    """A file for each split, categories with gaps: the classes are in the order of the numbers."""
    right = np.array([0, 2, 1], np.uint8)
    for split, count in (("train", 3), ("val", 2)):
        place = f"{split}2017/"
        labels = folder.pairs(
            photos=place + "p{}.jpg",
            masks=None,
            numbers=range(count),
            split=split,
            truth=lambda ids: right[ids],
        )
        content = coco(labels, ((90, "cat"), (7, "dog")), strip=place)
        folder.json(f"annotations/instances_{split}2017.json", content)
    folder.reads("background", "dog", "cat")


def test_coco_paints_in_the_order_of_the_file(folder: Folder):
    labels = folder.pairs(photos="images/p{}.png", masks=None)
    content = coco(labels, CATEGORIES)
    first = content["images"][0]["id"]
    for category in (1, 2):  # the dog covers a part of what the cat covered everywhere
        region = np.ones((24, 32), bool)
        region[:, 16:] &= category == 1
        note = {"id": 100 + category, "image_id": first, "category_id": category}
        content["annotations"].append({**note, **polygon(region)})
    folder.json("annotations.json", content)
    right = np.full((24, 32), 1, np.uint8)
    right[:, :16] = 2
    folder.label[""]["p0"] = right
    folder.reads("background", "cat", "dog")


def test_coco_photos_without_objects(folder: Folder):
    labels = folder.pairs(photos="images/p{}.png", masks=None, numbers=range(4))
    labels |= folder.pairs(photos="images/p{}.png", masks=None, numbers=[4], truth=np.zeros_like)
    labels["images/p4.png"][:] = 0
    folder.json("annotations.json", coco(labels, CATEGORIES, strip="images/"))
    folder.reads("background", "cat", "dog")


def test_coco_boxes_alone(folder: Folder):
    """A detection data set has no regions: that must not become background everywhere."""
    labels = folder.pairs(photos="images/p{}.png", masks=None)
    content = coco(labels, CATEGORIES, strip="images/")
    for note in content["annotations"]:
        note |= {"segmentation": [], "bbox": [0, 0, 8, 8]}
    folder.json("annotations.json", content)
    folder.refused("annotations.json", "segmentation")


def test_coco_photo_that_is_not_there(folder: Folder):
    labels = folder.pairs(photos="images/p{}.png", masks=None)
    folder.json("annotations.json", coco(labels, CATEGORIES, strip="images/"))
    (folder.path / "images/p2.png").unlink()
    folder.refused("p2.png")


# Other tools, whose folders are not read: the refusal says what is expected


def test_supervisely(folder: Folder):
    folder.json("meta.json", {"classes": [{"title": "cat", "shape": "bitmap"}]})
    folder.photo("ds0/img/p0.jpg")
    folder.json("ds0/ann/p0.jpg.json", {"size": {"height": 24, "width": 32}, "objects": []})
    folder.refused("meta.json", "classes.txt", "masks")


def test_labelme(folder: Folder):
    folder.photo("p0.jpg")
    shape = {"label": "cat", "points": [[0, 0], [8, 0], [8, 8]], "shape_type": "polygon"}
    folder.json("p0.json", {"version": "5.5.0", "shapes": [shape], "imagePath": "p0.jpg"})
    folder.refused("classes.txt", "masks")


def test_labelme_as_voc(folder: Folder):
    """labelme2voc names the classes in class_names.txt."""
    folder.text("class_names.txt", "_background_", "cat", "dog")
    folder.pairs(
        lambda ids: with_palette(ids, VOC_PALETTE),
        photos="JPEGImages/p{}.jpg",
        masks="SegmentationClass/p{}.png",
    )
    folder.reads("_background_", "cat", "dog", or_refused=["class_names.txt", "classes.txt"])


@pytest.mark.parametrize(
    ("images", "masks"), [("img_dir", "ann_dir"), ("images", "annotations"), ("images", "labels")]
)
def test_folders_of_mmsegmentation_and_paddleseg(folder: Folder, images, masks):
    folder.classes("a", "b", "c")
    for split, count in (("train", 3), ("val", 2)):
        places = {"photos": f"{images}/{split}/p{{}}.jpg", "masks": f"{masks}/{split}/p{{}}.png"}
        folder.pairs(**places, numbers=range(count), split=split)
    folder.reads("a", "b", "c", or_refused=[masks, "masks"])


# Photos without objects


def test_a_class_for_photos_without_mask(folder: Folder):
    folder.classes("sky", "ground", "car")
    folder.pairs(numbers=range(3))
    folder.pairs(masks=None, numbers=[3, 4], truth=np.ones_like)
    folder.reads("sky", "ground", "car", missing_mask="ground", says=[("2", "ground")])


def test_a_colour_for_photos_without_mask(folder: Folder):
    folder.colours("bg", "road", "car")
    folder.pairs(painted, masks="masks/p{}_mask.png", numbers=range(4))
    folder.pairs(masks=None, numbers=[4], truth=np.zeros_like)
    folder.reads("bg", "road", "car", missing_mask="bg", says=[("1", "bg")])


def test_photos_without_mask_in_roboflows_folders(folder: Folder):
    for split, place, count in (("train", "train", 3), ("val", "valid", 2)):
        folder.text(f"{place}/_classes.csv", "Pixel Value, Class", "0, bg", "1, road", "2, car")
        places = {"photos": f"{place}/p{{}}.jpg", "masks": f"{place}/p{{}}_mask.png"}
        folder.pairs(**places, numbers=range(count), split=split)
    folder.pairs(
        photos="train/p{}.jpg", masks=None, numbers=[7], split="train", truth=np.zeros_like
    )
    folder.reads("bg", "road", "car", missing_mask="bg")


def test_a_class_that_nobody_named(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs(masks=None, numbers=[5])
    folder.pairs()
    folder.refused("grund", "a, b, c", missing_mask="grund")


def test_masks_without_photo_stay_an_error(folder: Folder):
    folder.classes("a", "b", "c")
    folder.pairs()
    folder.save("masks/p7.png", folder.ids())
    folder.refused("p7.png", missing_mask="a")
