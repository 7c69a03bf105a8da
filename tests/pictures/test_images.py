import os

import numpy as np
import pytest
from PIL import Image

from flaxseg.errors import DataError
from flaxseg.inference import read_image, write_image, write_mask
from flaxseg.labels import LabelSet

GRADIENT = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


def saved(tmp_path, image, name="photo.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_rgb_comes_back_as_it_was(tmp_path, photo):
    np.testing.assert_array_equal(read_image(saved(tmp_path, Image.fromarray(photo))), photo)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_other_kinds_of_pixels_become_rgb(tmp_path, mode):
    image = Image.fromarray(GRADIENT).convert("RGB").convert(mode)
    got = read_image(saved(tmp_path, image, "photo.tif"))
    assert (got.shape, got.dtype) == ((4, 6, 3), np.uint8)
    np.testing.assert_array_equal(got, np.asarray(image.convert("RGB")))


def test_sixteen_bits_become_eight(tmp_path):
    image = Image.fromarray(GRADIENT.astype(np.uint16) * 257)
    assert image.mode.startswith("I;16")
    got = read_image(saved(tmp_path, image))
    np.testing.assert_array_equal(got, GRADIENT[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white(tmp_path, mode):
    image = Image.new(mode, (2, 1))
    image.putpixel((0, 0), (50,) * (len(mode) - 1) + (255,))
    np.testing.assert_array_equal(
        read_image(saved(tmp_path, image)), [[[50, 50, 50], [255, 255, 255]]]
    )


def test_transparency_of_a_palette_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([9, 9, 9, 50, 60, 70])
    image.putpixel((1, 0), 1)
    got = read_image(saved(tmp_path, image, "photo.gif", transparency=0))
    np.testing.assert_array_equal(got, [[[255, 255, 255], [50, 60, 70]]])


def test_the_camera_s_rotation_is_applied(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned: rotate by 90 degrees clockwise to show.
    got = read_image(saved(tmp_path, Image.fromarray(photo), exif=exif))
    np.testing.assert_array_equal(got, np.rot90(photo, -1))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_agreed_brightness_are_refused(tmp_path, dtype):
    path = saved(tmp_path, Image.fromarray(GRADIENT.astype(dtype)), "photo.tif")
    with pytest.raises(DataError, match=r"photo.tif has pixels of the kind '[IF]'.* 8-bit RGB"):
        read_image(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere.jpg does not exist"):
        read_image(tmp_path / "nowhere.jpg")


def test_a_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="is a folder: name the files in it"):
        read_image(tmp_path)


@pytest.mark.parametrize("content", [b"", b"these are words, not pixels"])
def test_what_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "notes.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"notes.jpg is not an image that can be read"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "webp"])
def test_a_damaged_image_is_named(tmp_path, photo, suffix):
    whole = saved(tmp_path, Image.fromarray(photo.repeat(9, axis=0)), f"photo.{suffix}")
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with pytest.raises(DataError, match=f"photo.{suffix}"):
        read_image(whole)


def test_an_image_too_large_to_be_true_is_named(tmp_path, photo, monkeypatch):
    path = saved(tmp_path, Image.fromarray(photo))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match="photo.png is too large: .*187 pixels"):
        read_image(path)


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
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), photo[::-1])


def test_a_failed_write_leaves_the_old_file(tmp_path, photo, monkeypatch):
    write_image(tmp_path / "a.png", photo)

    def full_disk(self, file, *_):
        file.write(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(DataError, match="a.png cannot be written: No space left on device"):
        write_image(tmp_path / "a.png", photo[::-1])
    assert os.listdir(tmp_path) == ["a.png"]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), photo)


def test_a_missing_folder_is_named(tmp_path, photo):
    with pytest.raises(DataError, match="cannot be written: No such file or directory"):
        write_image(tmp_path / "nowhere" / "a.png", photo)
