"""A folder is read where it lies, as it was when it was checked."""

import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from flaxseg.data import open_source
from flaxseg.errors import ConfigError, DataError

SIZE = (5, 7)


@pytest.fixture
def picture(rng):
    return rng.integers(0, 256, (*SIZE, 3), np.uint8)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def opened(root, save, cache):
    """Opens a folder of one pair to train and an equal one to validate, once `write` made both."""

    def make(write, mask=None, **options):
        mask = np.zeros(SIZE, np.uint8) if mask is None else mask
        for split in ("train", "val"):
            (root / split / "images").mkdir(parents=True, exist_ok=True)
            write(root / split / "images")
            save(root / split / "masks" / "a.png", mask)
        (root / "classes.txt").write_text("ground\ntree\n")
        return open_source("folder", "train", data_dir=root, cache_dir=cache, **options)

    return make


def oriented(picture, orientation, suffix="png"):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return lambda folder: Image.fromarray(picture).save(folder / f"a.{suffix}", exif=exif)


def cached(cache: pathlib.Path) -> set[str]:
    return {path.name for path in cache.rglob("*") if path.is_file()}


def test_no_picture_is_copied(plain_dir, cache):
    source = open_source("folder", "train", data_dir=plain_dir, cache_dir=cache)
    assert cached(cache) == {"index.json", "counts.npz"}
    label = np.asarray(Image.open(plain_dir / "masks" / "p0.png"))
    np.testing.assert_array_equal(source[0].label, label)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_photos_of_all_formats_are_read(opened, root, picture, suffix):
    source = opened(lambda folder: Image.fromarray(picture).save(folder / f"a.{suffix}"))
    with Image.open(root / "train" / "images" / f"a.{suffix}") as stored:
        np.testing.assert_array_equal(source[0].image, np.asarray(stored))


def test_photos_that_are_no_plain_colours_follow_the_rules(opened, picture):
    alpha = np.full(SIZE, 255, np.uint8)
    alpha[0, :3] = 0
    both = np.dstack((picture, alpha))
    source = opened(lambda folder: Image.fromarray(both).save(folder / "a.png"))
    expected = np.where(alpha[..., None] == 0, 255, picture)
    np.testing.assert_array_equal(source[0].image, expected)
    assert "2 photos: transparent pixels, shown on white" in source.lines


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_label_map_of_the_turned_photo_turns_it(opened, root, picture, suffix):
    source = opened(oriented(picture, 6, suffix), np.zeros(SIZE[::-1], np.uint8))
    stored = np.asarray(Image.open(root / "train" / "images" / f"a.{suffix}"))
    np.testing.assert_array_equal(source[0].image, np.rot90(stored, -1))


def test_label_map_of_the_stored_photo_keeps_it(opened, picture):
    source = opened(oriented(picture, 8))
    np.testing.assert_array_equal(source[0].image, picture)


@pytest.mark.parametrize(("orientation", "size"), [(3, (5, 7)), (2, (5, 7)), (6, (5, 5))])
def test_orientation_that_no_size_decides_is_refused(opened, picture, orientation, size):
    write = oriented(picture[: size[0], : size[1]], orientation)
    message = f"a.png: its EXIF orientation {orientation} turns or mirrors it.*fits either way; s"
    with pytest.raises(DataError, match=message):
        opened(write, np.zeros(size, np.uint8))


@pytest.mark.parametrize("size", [(5, 8), (6, 7), (4, 7)])
def test_label_map_that_is_off_by_a_pixel_is_refused(opened, picture, size):
    write = oriented(picture, 1)
    with pytest.raises(DataError, match=f"a.png: is {size[1]} x {size[0]}, but its image .*7 x 5"):
        opened(write, np.zeros(size, np.uint8))


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_file_that_changes_its_size_later_is_told_of(opened, root, save, picture, kind):
    source = opened(oriented(picture, 1))
    content = {"images": picture, "masks": np.zeros(SIZE, np.uint8)}[kind]
    save(root / "train" / kind / "a.png", content[:3])
    with pytest.raises(DataError, match="a.png: no longer has the size of its photo .*run the com"):
        source[0]
    (root / "train" / kind / "a.png").unlink()
    with pytest.raises(DataError, match=f"{kind}/a.png: .*(cannot be read|No such|does not exist)"):
        source[0]


def test_files_that_change_later_are_read_anew(opened, root, save, picture):
    source = opened(oriented(picture, 1))
    save(root / "train" / "images" / "a.png", 255 - picture)
    save(root / "train" / "masks" / "a.png", np.ones(SIZE, np.uint8))
    np.testing.assert_array_equal(source[0].image, 255 - picture)
    assert (source[0].label == 1).all()
    save(root / "train" / "masks" / "a.png", np.full(SIZE, 7, np.uint8))
    with pytest.raises(DataError, match="a.png: number 7 in 35 pixels"):
        source[0]


def test_a_touched_folder_is_checked_again_and_stays_small(plain_dir, cache):
    for second in range(1, 5):
        os.utime(plain_dir / "images" / "p0.png", (second, second))
        open_source("folder", "train", data_dir=plain_dir, cache_dir=cache)
    assert len(list((cache / "folder").iterdir())) <= 2


@pytest.fixture
def without_some_masks(plain_dir):
    for position in (1, 4):
        (plain_dir / "masks" / f"p{position}.png").unlink()
    return plain_dir


def names(source):
    return [pathlib.Path(source.name(index)).stem for index in range(len(source))]


def test_photos_without_label_map_are_an_error(without_some_masks, cache):
    message = "2 of 10 .*p1.png.*--missing-mask CLASS"
    with pytest.raises(DataError, match=message):
        open_source("folder", "train", data_dir=without_some_masks, cache_dir=cache)


def test_photos_without_label_map_become_a_class(without_some_masks, cache):
    options = {"data_dir": without_some_masks, "cache_dir": cache, "missing_mask": "sky"}
    train, val = (open_source("folder", split, **options) for split in ("train", "val"))
    assert names(val) == ["p4", "p9"]
    assert (val[0].label == 1).all() and val[0].label.shape == (6, 8)
    assert (train[names(train).index("p1")].label == 1).all()
    assert val.statistics.counts[0][1] == 48


def test_photos_without_label_map_are_left_out(without_some_masks, cache):
    options = {"data_dir": without_some_masks, "cache_dir": cache, "missing_mask": "skip"}
    train, val = (open_source("folder", split, **options) for split in ("train", "val"))
    assert names(val) == ["p9"] and len(train) == 7
    assert not train.skipped
    assert any("2" in line and "without" in line for line in train.lines)


def test_missing_masks_of_an_unknown_class(without_some_masks, cache):
    with pytest.raises(ConfigError, match="--missing-mask skie is no class; did you mean sky"):
        open_source(
            "folder", "train", data_dir=without_some_masks, cache_dir=cache, missing_mask="skie"
        )


def test_photos_beyond_the_limit(plain_dir, cache):
    with pytest.raises(DataError, match="--max-pixels"):
        open_source("folder", "train", data_dir=plain_dir, cache_dir=cache, max_pixels=47)
    source = open_source("folder", "train", data_dir=plain_dir, cache_dir=cache, max_pixels=48)
    assert source[0].image.shape == (6, 8, 3)
