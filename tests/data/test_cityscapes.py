"""Cityscapes from small archives in the official layout."""

import numpy as np
import pytest
from PIL import Image

from flaxseg.data import open_source
from flaxseg.data.cityscapes import LABELS
from flaxseg.errors import DataError

CITIES = {"train": ("aachen", "bochum"), "val": ("munster",), "test": ("berlin",)}
IDS = np.arange(35).reshape(5, 7)
IDS[IDS == 34] = 0
# The published table of train ids, by label id.
TRAIN_IDS = [
    *(255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255),
    *(5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255, 255, 16, 17, 18),
]


@pytest.fixture
def extracted(tmp_path, save, rng):
    root = tmp_path / "extracted"
    for split, cities in CITIES.items():
        for city in cities:
            stem = f"{split}/{city}/{city}_000000_000019"
            image = rng.integers(0, 256, (5, 7, 3), np.uint8)
            save(root / f"leftImg8bit/{stem}_leftImg8bit.png", image)
            ids = rng.permutation(IDS.ravel()).reshape(IDS.shape).astype(np.uint8)
            save(root / f"gtFine/{stem}_gtFine_labelIds.png", ids)
            save(root / f"gtFine/{stem}_gtFine_instanceIds.png", ids.astype(np.uint16) * 1000)
            save(root / f"gtFine/{stem}_gtFine_color.png", image)
            (root / f"gtFine/{stem}_gtFine_polygons.json").write_text("{}")
    (root / "README").write_text("")
    return root


def assert_holds(data_dir, root, cache, city="munster", split="val"):
    source = open_source("cityscapes", split, data_dir=data_dir, cache_dir=cache)
    stem = f"{split}/{city}/{city}_000000_000019"
    assert source.name(0) == f"leftImg8bit/{stem}_leftImg8bit.png"
    np.testing.assert_array_equal(source[0].image, np.asarray(Image.open(root / source.name(0))))
    ids = np.asarray(Image.open(root / f"gtFine/{stem}_gtFine_labelIds.png"))
    np.testing.assert_array_equal(source[0].label, np.array(TRAIN_IDS)[ids])


def test_archives(extracted, pack, cache, tmp_path):
    for kind in ("leftImg8bit", "gtFine"):
        part = tmp_path / f"only_{kind}"
        part.mkdir()
        (extracted / kind).rename(part / kind)
        pack(part, tmp_path / "packed" / f"{kind}_trainvaltest.zip")
        (part / kind).rename(extracted / kind)
    assert_holds(tmp_path / "packed", extracted, cache)
    train = open_source("cityscapes", "train", data_dir=tmp_path / "packed", cache_dir=cache)
    assert len(train) == 2 and train.labels == LABELS
    with pytest.raises(DataError, match="cityscapes has no split 'test' here: use one of train, v"):
        open_source("cityscapes", "test", data_dir=tmp_path / "packed", cache_dir=cache)


def test_folders(extracted, cache):
    assert_holds(extracted, extracted, cache)
    assert_holds(extracted, extracted, cache, "aachen", "train")


def test_train_ids(extracted, save, cache):
    expected = {}
    for path in list(extracted.rglob("*_labelIds.png")):
        ids = np.array(TRAIN_IDS, np.uint8)[np.asarray(Image.open(path))]
        expected[path.parent.name] = ids
        save(path.with_name(path.name.replace("labelIds", "labelTrainIds")), ids)
        path.unlink()
    val = open_source("cityscapes", "val", data_dir=extracted, cache_dir=cache)
    np.testing.assert_array_equal(val[0].label, expected["munster"])


def test_label_set():
    assert LABELS.num_classes == 19
    named = dict(zip(LABELS.classes, LABELS.palette, strict=True))
    assert named["road"] == (128, 64, 128) and named["bicycle"] == (119, 11, 32)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (
            None,
            "cityscapes needs its folder: give --data-dir. Expected are leftImg8bit_train.*login",
        ),
        ("gtFine/val", "is no cityscapes folder, .*but no gtFine/val. Expected are leftImg8bit_"),
        (
            "leftImg8bit/train/bochum/bochum_000000_000019_leftImg8bit.png",
            "1 files .*bochum_000000_000019_gtFine_labelIds.png: has no image, expected",
        ),
    ],
)
def test_what_is_missing_is_named(extracted, cache, missing, message):
    data_dir = None
    if missing:
        (extracted / missing).rename(extracted / "away")
        data_dir = extracted
    with pytest.raises(DataError, match=message):
        open_source("cityscapes", "train", data_dir=data_dir, cache_dir=cache)
