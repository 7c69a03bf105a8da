"""Written files appear complete or not at all."""

import os

import numpy as np
import pytest
from PIL import Image

from flaxseg.errors import DataError
from flaxseg.labels import LabelSet
from flaxseg.pictures import read_photo, write_image, write_mask


def test_a_mask_holds_the_ids_and_shows_the_colours(tmp_path):
    labels = LabelSet.generic(3)
    label = np.array([[0, 1], [2, 255]], np.uint8)
    write_mask(tmp_path / "mask.png", label, labels.palette)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), label)
        colors = np.asarray(image.convert("RGB")).reshape(4, 3)
    np.testing.assert_array_equal(colors, [*labels.palette, (0, 0, 0)])


def test_a_mask_of_many_classes(tmp_path):
    label = np.arange(255, dtype=np.uint8).reshape(15, 17)
    write_mask(tmp_path / "mask.png", label, LabelSet.generic(255).palette)
    with Image.open(tmp_path / "mask.png") as image:
        np.testing.assert_array_equal(np.asarray(image), label)


def test_writing_leaves_no_other_file(tmp_path, photo):
    write_image(tmp_path / "a.png", photo)
    write_image(tmp_path / "a.png", photo[::-1])
    assert os.listdir(tmp_path) == ["a.png"]
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png"), photo[::-1])


def test_a_failed_write_leaves_the_old_file(tmp_path, photo, monkeypatch):
    write_image(tmp_path / "a.png", photo)

    def full_disk(self, file, *_):
        file.write(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(DataError, match="a.png cannot be written: No space left on device"):
        write_image(tmp_path / "a.png", photo[::-1])
    assert os.listdir(tmp_path) == ["a.png"]
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png"), photo)


def test_a_missing_folder_is_named(tmp_path, photo):
    with pytest.raises(DataError, match="cannot be written: No such file or directory"):
        write_image(tmp_path / "nowhere" / "a.png", photo)
