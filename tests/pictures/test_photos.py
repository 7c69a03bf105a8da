import io
import struct
import threading
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from flaxseg.errors import ConfigError, DataError
from flaxseg.pictures import (
    MAX_PIXELS,
    decode_plain,
    is_photo_name,
    look_at_photo,
    open_picture,
    read_photo,
    turn,
)

GRADIENT = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
ORIENTATION = 0x0112


def saved(tmp_path, image, name="photo.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def turned_by(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


LOSSLESS = [("png", {}), ("tif", {}), ("tiff", {"compression": "tiff_lzw"}), ("bmp", {})]
LOSSLESS += [("tif", {"compression": "tiff_deflate"}), ("webp", {"lossless": True})]


@pytest.mark.parametrize(("suffix", "options"), LOSSLESS)
def test_every_format_comes_back_as_it_was(tmp_path, photo, suffix, options):
    path = saved(tmp_path, Image.fromarray(photo), f"photo.{suffix}", **options)
    np.testing.assert_array_equal(read_photo(path), photo)
    assert look_at_photo(path).facts.remarks == ()


@pytest.mark.parametrize("kind", ["BMP", "WEBP", "TIFF"])
def test_the_content_tells_the_format_and_not_the_name(tmp_path, photo, kind):
    path = saved(tmp_path, Image.fromarray(photo), "photo.jpg", format=kind, lossless=True)
    np.testing.assert_array_equal(read_photo(path), photo)


@pytest.mark.parametrize(
    ("name", "is_photo"),
    [("a.JPG", True), ("a/b.Tif", True), ("x.jfif", True), ("a.heic", False), ("jpg", False)],
)
def test_the_ending_says_what_counts_as_a_picture(name, is_photo):
    assert is_photo_name(name) is is_photo


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_and_palettes_become_rgb(tmp_path, mode, suffix):
    image = Image.fromarray(GRADIENT).convert("RGB").convert(mode)
    got = read_photo(saved(tmp_path, image, f"photo.{suffix}"))
    assert (got.shape, got.dtype) == ((4, 6, 3), np.uint8)
    np.testing.assert_array_equal(got, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", "tif"), ("CMYK", "jpg"), ("YCbCr", "tif")])
def test_printers_and_television_s_colours_become_rgb(tmp_path, mode, suffix):
    color = Image.new("RGB", (16, 16), (200, 100, 50)).convert(mode)
    got = read_photo(saved(tmp_path, color, f"photo.{suffix}"))
    np.testing.assert_allclose(got[8, 8].astype(int), (200, 100, 50), atol=2)


def cv2_saved(tmp_path, values, name):
    cv2.imwrite(str(tmp_path / name), values)
    return tmp_path / name


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_of_sixteen_bits_the_high_byte_counts(tmp_path, rng, channels, suffix):
    values = rng.integers(0, 2**16, (5, 7, channels), np.uint16)
    photo = look_at_photo(cv2_saved(tmp_path, values, f"photo.{suffix}"))
    expected = np.broadcast_to(values[..., ::-1] >> 8, (5, 7, 3))
    np.testing.assert_array_equal(photo.pixels, expected)
    assert photo.facts.remarks == ("16 bits, the high byte counts",)


def test_sixteen_bits_that_are_almost_black_are_told_of(tmp_path):
    path = cv2_saved(tmp_path, np.full((5, 7), 4095, np.uint16), "photo.tif")
    assert look_at_photo(path).facts.remarks == (
        "16 bits, the high byte counts, and the brightest is 15 of 255",
    )


def test_white_is_zero_in_some_tiffs(tmp_path):
    stored = Image.fromarray(np.array([[0, 65535, 256]], np.uint16))
    path = saved(tmp_path, stored, "photo.tif", tiffinfo={262: 0})
    assert read_photo(path)[0, :, 0].tolist() == [255, 0, 254]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_transparent_pixels_are_white(tmp_path, mode, suffix):
    image = Image.new(mode, (3, 1))
    image.putpixel((0, 0), (50,) * (len(mode) - 1) + (255,))
    image.putpixel((1, 0), (50,) * (len(mode) - 1) + (51,))
    photo = look_at_photo(saved(tmp_path, image, f"photo.{suffix}"))
    assert photo.pixels[0, :, 0].tolist() == [50, 214, 255]
    assert photo.facts.remarks == ("transparent pixels, shown on white",)
    assert not photo.facts.plain


def test_an_opaque_alpha_channel_changes_nothing(tmp_path, photo):
    path = saved(tmp_path, Image.fromarray(photo).convert("RGBA"))
    found = look_at_photo(path)
    np.testing.assert_array_equal(found.pixels, photo)
    assert found.facts.remarks == ()


def test_transparency_of_a_palette_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([9, 9, 9, 50, 60, 70])
    image.putpixel((1, 0), 1)
    got = read_photo(saved(tmp_path, image, "photo.gif", transparency=0))
    np.testing.assert_array_equal(got, [[[255, 255, 255], [50, 60, 70]]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_transparent_grey_is_white(tmp_path, dtype):
    grey = np.array([[10, 20]], dtype) << (8 * np.dtype(dtype).itemsize - 8)
    photo = look_at_photo(saved(tmp_path, Image.fromarray(grey), transparency=int(grey[0, 0])))
    assert photo.pixels[0, :, 0].tolist() == [255, 20]
    assert "transparent pixels, shown on white" in photo.facts.remarks


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_what_viewers_do(photo, orientation):
    image = Image.fromarray(photo)
    image.getexif()[ORIENTATION] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(turn(photo, orientation), expected)
    np.testing.assert_array_equal(turn(photo[..., 0], orientation), expected[..., 0])


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [2, 6, 7, 8])
def test_the_camera_s_rotation_is_applied(tmp_path, photo, suffix, orientation):
    options = {"lossless": True} if suffix == "webp" else {}
    exif = turned_by(orientation)
    path = saved(tmp_path, Image.fromarray(photo), f"photo.{suffix}", exif=exif, **options)
    np.testing.assert_array_equal(read_photo(path), turn(photo, orientation))
    np.testing.assert_array_equal(read_photo(path, orientation=False), photo)
    facts = look_at_photo(path).facts
    assert (facts.orientation, facts.size) == (orientation, photo.shape[:2])


def test_a_published_photo_is_taken_as_it_is_stored(tmp_path, photo):
    clear = np.dstack((photo, np.zeros(photo.shape[:2], np.uint8)))
    path = saved(tmp_path, Image.fromarray(clear), exif=turned_by(6))
    found = look_at_photo(path, published=True)
    np.testing.assert_array_equal(found.pixels, photo)
    assert (found.facts.orientation, found.facts.remarks) == (1, ())


def test_a_published_jpeg_may_lack_its_end(tmp_path, photo):
    path = saved(tmp_path, Image.fromarray(photo), "photo.jpg")
    path.write_bytes(path.read_bytes()[:-2] + bytes(9))
    assert read_photo(path, published=True).shape == photo.shape
    with pytest.raises(DataError, match=r"photo.jpg: is no readable picture \(.*end.*; replace"):
        read_photo(path)


def test_damaged_exif_data_leave_the_photo_as_it_is(tmp_path, photo):
    path = saved(tmp_path, Image.fromarray(photo), exif=b"Exif\0\0no TIFF header here")
    np.testing.assert_array_equal(read_photo(path), photo)


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_the_first_of_several_pictures_counts(tmp_path, suffix):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(
        tmp_path, frames[0], f"p.{suffix}", save_all=True, append_images=frames[1:], **options
    )
    photo = look_at_photo(path)
    assert (photo.pixels == (255, 0, 0)).all() and photo.pixels.shape == (4, 4, 3)
    assert photo.facts.remarks == ("the first of 3 pictures in the file",)


def test_a_jpeg_with_a_second_one_behind_it_is_one_photo(tmp_path, photo):
    image = Image.fromarray(photo)
    path = saved(tmp_path, image, "p.jpg", format="MPO", save_all=True, append_images=[image])
    found = look_at_photo(path)
    assert found.facts.plain and found.facts.remarks == ()
    np.testing.assert_array_equal(decode_plain(found.data), found.pixels)


PLAIN = [("png", {}), ("jpg", {"quality": 30}), ("jpg", {"quality": 100, "subsampling": "4:4:4"})]
PLAIN += [("jpg", {"subsampling": s, "progressive": p}) for s in ("4:2:0", "4:2:2") for p in (0, 1)]
PLAIN += [("jpg", {"subsampling": "4:1:1", "restart_marker_blocks": 2}), ("jpg", {"optimize": 1})]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(("suffix", "options"), PLAIN)
def test_plain_photos_are_decoded_bit_for_bit(tmp_path, rng, suffix, options, mode):
    y, x = np.mgrid[:67, :93]
    smooth = np.stack([3 * y, 2 * x, x + y], -1) + rng.integers(0, 40, (67, 93, 3))
    image = Image.fromarray((smooth % 256).astype(np.uint8)).convert(mode)
    options = options if mode == "RGB" else {k: v for k, v in options.items() if k != "subsampling"}
    path = saved(tmp_path, image, f"p.{suffix}", exif=turned_by(8), **options)
    data, pixels, facts = look_at_photo(path, orientation=False)
    assert facts.plain and facts.orientation == 8
    np.testing.assert_array_equal(decode_plain(data), pixels)
    np.testing.assert_array_equal(pixels, read_photo(path, orientation=False))


def test_what_opencv_reads_otherwise_is_not_plain(tmp_path):
    cmyk = Image.new("CMYK", (16, 16), (200, 10, 90, 40))
    for path in (
        saved(tmp_path, cmyk, "cmyk.jpg"),
        saved(tmp_path, Image.new("RGBA", (4, 4), (1, 2, 3, 4))),
        saved(tmp_path, Image.new("RGB", (4, 4)), "p.tif"),
    ):
        data, pixels, facts = look_at_photo(path)
        assert facts.plain is False or np.array_equal(decode_plain(data), pixels)
    assert facts.plain is False


def test_bytes_without_a_picture_are_refused():
    with pytest.raises(ValueError, match="hold no picture"):
        decode_plain(b"words")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_agreed_brightness_are_refused(tmp_path, dtype):
    path = saved(tmp_path, Image.fromarray(GRADIENT.astype(dtype)), "photo.tif")
    with pytest.raises(DataError, match=r"photo.tif: has pixels of the kind '[IF]'.* 8-bit RGB"):
        read_photo(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.jpg: cannot be read \(No such file"):
        read_photo(tmp_path / "nowhere.jpg")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read_photo(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty file"), (b"these are words", "no PNG, JPEG, TIFF, BMP,")]
)
def test_what_is_no_picture_is_named(tmp_path, content, reason):
    path = tmp_path / "notes.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"notes.jpg: is no readable picture \({reason}.*replace"):
        read_photo(path)


@pytest.mark.parametrize("share", [0.1, 0.66, 0.95])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "webp", "bmp"])
def test_a_damaged_picture_is_named(tmp_path, rng, suffix, share):
    photo = Image.fromarray(rng.integers(0, 256, (99, 77, 3), np.uint8))
    whole = saved(tmp_path, photo, f"photo.{suffix}")
    whole.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    with pytest.raises(DataError, match=rf"photo.{suffix}: is no readable picture \(.+\); replace"):
        read_photo(whole)


def png_header(width, height):
    """A PNG that promises many pixels and has none."""

    def chunk(kind, data):
        content = kind + data
        return struct.pack(">I", len(data)) + content + struct.pack(">I", zlib.crc32(content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [11000, 14000, 60000])  # above Pillow's warning, error and ours
def test_a_picture_of_too_many_pixels_is_told_how_to_be_read(tmp_path, side):
    (tmp_path / "p.png").write_bytes(png_header(side, side))
    message = (
        f"p.png: has {side} x {side} = {side**2} pixels, more than the limit of 100000000; give "
        f"--max-pixels {side**2}"
    )
    with pytest.raises(DataError, match=message):
        read_photo(tmp_path / "p.png", max_pixels=100_000_000)


def test_the_limit_can_be_moved_and_lifted(tmp_path, photo, monkeypatch):
    path = saved(tmp_path, Image.fromarray(photo))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # Pillow would refuse from 101 pixels on
    with pytest.raises(DataError, match="17 x 11 = 187 pixels, more than the limit of 186;"):
        read_photo(path, max_pixels=186)
    for limit in (187, 0, MAX_PIXELS):
        assert look_at_photo(path, max_pixels=limit).pixels.shape == photo.shape
    assert open_picture(path)[1].size == (17, 11)
    assert Image.MAX_IMAGE_PIXELS == 50


@pytest.mark.parametrize("suffix", ["tif", "webp", "gif", "bmp", "jpg"])
def test_pillow_s_limit_holds_nothing_up(tmp_path, photo, monkeypatch, suffix):
    path = saved(tmp_path, Image.fromarray(photo), f"p.{suffix}")
    for limit in (100, 10):  # a warning, an error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_photo(path).shape == photo.shape


def test_a_senseless_limit_is_refused(tmp_path, photo):
    path = saved(tmp_path, Image.fromarray(photo))
    with pytest.raises(ConfigError, match="max_pixels is -1, it must be at least 1, or 0"):
        read_photo(path, max_pixels=-1)


def test_threads_leave_pillow_s_limit_as_it_was(tmp_path, photo, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    paths = [saved(tmp_path, Image.fromarray(photo), f"{i}.tif") for i in range(4)]
    problems = []

    def read(path):
        try:
            for _ in range(20):
                read_photo(path)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=read, args=(path,)) for path in paths]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == [] and Image.MAX_IMAGE_PIXELS == 50
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(paths[0].read_bytes()))
