import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from flaxseg.data import open_source
from flaxseg.errors import DataError


def opened(root, cache, split="train", **options):
    return open_source("folder", split, data_dir=root, cache_dir=cache, **options)


def names(root, cache):
    splits = {}
    for split in ("train", "val"):
        source = opened(root, cache, split)
        splits[split] = [source.name(i) for i in range(len(source))]
    return splits


def assert_holds(source, root):
    for i, (image, label) in enumerate(source):
        np.testing.assert_array_equal(image, np.asarray(Image.open(root / source.name(i))))
        mask = root / source.name(i).replace("images", "masks")
        np.testing.assert_array_equal(label, np.asarray(Image.open(mask.with_suffix(".png"))))


def test_every_fifth_validates(plain_dir, cache):
    found = names(plain_dir, cache)
    assert found["val"] == ["images/p4.png", "images/p9.png"] and len(found["train"]) == 8
    train = opened(plain_dir, cache)
    assert train.labels.classes == ("ground", "sky") and train.labels.name == "folder"
    assert_holds(train, plain_dir)


def test_lists(plain_dir, cache):
    (plain_dir / "train.txt").write_text("p0\nimages/p1.png\nmasks/p2.png\n")
    (plain_dir / "val.txt").write_text("p3.jpg\n")
    assert names(plain_dir, cache) == {
        "train": ["images/p0.png", "images/p1.png", "images/p2.png"],
        "val": ["images/p3.png"],
    }


@pytest.mark.parametrize("form", ["{kind}/{split}", "{split}/{kind}"])
def test_split_folders(tmp_path, save, rng, cache, form):
    for split, count in {"train": 3, "val": 2, "test": 1}.items():
        for i in range(count):
            for kind, shape in {"images": (4, 5, 3), "masks": (4, 5)}.items():
                folder = tmp_path / "d" / form.format(kind=kind, split=split)
                save(folder / "deep" / f"{i}.png", rng.integers(0, 2, shape, np.uint8))
    (tmp_path / "d" / "classes.txt").write_text("a\nb\n")
    counts = [len(opened(tmp_path / "d", cache, split)) for split in ("train", "val", "test")]
    assert counts == [3, 2, 1]
    assert_holds(opened(tmp_path / "d", cache), tmp_path / "d")


def test_names_with_spaces_and_accents(plain_dir, cache):
    """An image whose accent is one character, its mask with the accent apart, as macOS has it."""
    name = "bl\N{LATIN SMALL LETTER A WITH DIAERESIS}tter \N{CJK UNIFIED IDEOGRAPH-68EE} 1"
    assert unicodedata.normalize("NFD", name) != name
    (plain_dir / "images/p4.png").rename(plain_dir / "images" / f"{name}.png")
    mask = plain_dir / "masks" / f"{unicodedata.normalize('NFD', name)}.png"
    (plain_dir / "masks/p4.png").rename(mask)
    (plain_dir / "val.txt").write_text(f"{unicodedata.normalize('NFD', name)}\n", "utf-8")
    val = opened(plain_dir, cache, "val")
    assert [val.name(0), len(val)] == [f"images/{name}.png", 1]
    np.testing.assert_array_equal(val[0].label, np.asarray(Image.open(mask)))


COLORS = {
    "classes": [{"name": "ground", "color": [9, 8, 7]}, {"name": "sky", "color": "#0000ff"}],
    "ignore": [[0, 0, 0]],
}


def paint(root, save):
    table = np.array([(9, 8, 7), (0, 0, 255), (0, 0, 0)], np.uint8)
    for path in (root / "masks").iterdir():
        ids = np.asarray(Image.open(path)).copy()
        ids[0, 0] = 2
        save(path, table[ids])


def test_masks_in_colour(plain_dir, cache, save):
    paint(plain_dir, save)
    (plain_dir / "classes.json").write_text(json.dumps(COLORS))
    train = opened(plain_dir, cache)
    assert train.labels.palette == ((9, 8, 7), (0, 0, 255))
    mask = np.asarray(Image.open(plain_dir / "masks/p0.png"))
    expected = np.select([mask[..., 0] == 9, mask[..., 2] == 255], [0, 1], 255)
    np.testing.assert_array_equal(train[0].label, expected)
    assert train[0].label[0, 0] == 255


def test_colour_table_in_text(plain_dir, cache, save):
    paint(plain_dir, save)
    (plain_dir / "classes.txt").unlink()
    (plain_dir / "label_colors.txt").write_text("9 8 7 ground\n0 0 255 sky\n0 0 0 void\n")
    assert opened(plain_dir, cache).labels.classes == ("ground", "sky", "void")


def test_ids_to_ignore(plain_dir, cache, save):
    save(plain_dir / "masks/p0.png", np.full((6, 8), 77, np.uint8))
    (plain_dir / "classes.json").write_text(json.dumps({"classes": ["a", "b"], "ignore": [77]}))
    assert (opened(plain_dir, cache)[0].label == 255).all()


def no_classes(root, save):
    (root / "classes.txt").unlink()
    return "/plain: names no classes, it holds images, masks; add one of classes.json, classes.txt"


def no_masks(root, save):
    (root / "masks").rename(root / "shapes")
    return "has no images/ and masks/, nor .* it holds classes.txt, images, shapes. Expected are"


def colours_without_table(root, save):
    paint(root, save)
    return (
        r"masks/p0.png and 9 more of 10 RGB masks: is an RGB mask \(colour .*but numbers are .*"
        "/classes.txt gives no colours; give each class its"
    )


def colour_without_class(root, save):
    paint(root, save)
    save(root / "masks/p3.png", np.full((6, 8, 3), 50, np.uint8))
    (root / "classes.json").write_text(json.dumps(COLORS))
    return r"p3.png: colour \(50, 50, 50\) .* is none of the 3 colours of .*classes.json"


def no_mask(root, save):
    (root / "masks/p3.png").unlink()
    return r"1 of 10 pictures in .*/plain has no mask \(images/p3.png\); --missing-mask CLASS makes"


def two_masks_of_a_name(root, save):
    save(root / "masks/p3.tif", np.zeros((6, 8), np.uint8))
    return "masks/p3.tif: p3.png has the same name; remove one of them"


def two_images_of_a_name(root, save):
    save(root / "images/p3.jpg", np.zeros((6, 8, 3), np.uint8))
    return "images/p3.png: p3.jpg has the same name; remove one of them"


def name_in_another_encoding(root, save):
    path = os.fsencode(root / "images") + "/h\u00fctte.png".encode("latin-1")
    os.rename(root / "images/p3.png", path)
    return r"images/h\\udcfctte.png': the name is not UTF-8; rename the file"


def only_one_pair(root, save):
    for path in root.glob("*s/p[1-9].png"):
        path.unlink()
    return "/plain: the val split has no images. Expected are"


def name_in_two_folders(root, save):
    save(root / "images/deep/p3.png", np.zeros((6, 8, 3), np.uint8))
    save(root / "masks/deep/p3.png", np.zeros((6, 8), np.uint8))
    (root / "val.txt").write_text("p3\n")
    return "val.txt: 'p3' may be images/deep/p3.png and images/p3.png; write it with its folder"


FAULTS = [
    *(no_classes, no_masks, colours_without_table, colour_without_class, no_mask),
    *(
        two_masks_of_a_name,
        two_images_of_a_name,
        name_in_another_encoding,
        only_one_pair,
        name_in_two_folders,
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_bad_folder_is_refused_and_leaves_nothing(plain_dir, save, cache, fault):
    message = fault(plain_dir, save)
    with pytest.raises(DataError, match=message) as caught:
        opened(plain_dir, cache)
    assert "\n" not in str(caught.value)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
