import functools
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from flaxseg.data import mask_files
from flaxseg.data.mask_files import look_at_mask, pack_color, scan_mask, unpack_color
from flaxseg.errors import DataError

IDS = np.array([[0, 1, 2], [3, 255, 0]], np.uint8)
PAINTED = np.array([[(255, 0, 0), (0, 0, 255)], [(0, 255, 0), (0, 255, 0)]], np.uint8)


@pytest.fixture(autouse=True)
def any_format(monkeypatch):
    open_any = functools.partial(mask_files.open_picture, published=True)
    monkeypatch.setattr(mask_files, "open_picture", open_any)


def png(height, width, depth, kind, rows):
    """A PNG file of packed rows, of a depth that Pillow does not write."""

    def chunk(name, data):
        content = name + data
        return struct.pack(">I", len(data)) + content + struct.pack(">I", zlib.crc32(content))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def palette(indices, colors):
    image = Image.fromarray(np.asarray(indices, np.uint8))
    image.putpalette(np.asarray(colors, np.uint8).ravel().tolist())
    return image


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_one_channel_of_8_bits(tmp_path, save, suffix):
    facts = look_at_mask(save(tmp_path / f"m.{suffix}", IDS))
    assert facts.size == (2, 3) and facts.kind == "grey" and not facts.lossy
    assert facts.numbers.tolist() == [0, 1, 2, 3, 255]
    assert facts.pixels.tolist() == [2, 1, 1, 1, 1]
    assert facts.first.tolist() == [0, 1, 2, 3, 4]
    assert [unpack_color(color) for color in facts.colors.tolist()] == [
        (number,) * 3 for number in (0, 1, 2, 3, 255)
    ]


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [("png", np.uint16), ("tif", np.uint16), ("tif", np.int32), ("tif", np.float32)],
)
def test_one_channel_of_more_bits(tmp_path, save, suffix, dtype):
    facts = look_at_mask(save(tmp_path / f"m.{suffix}", np.array([[0, 255, 9000]], dtype)))
    assert facts.kind == "grey" and facts.numbers.tolist() == [0, 255, 9000]
    assert facts.colors.tolist() == [0, pack_color((255, 255, 255)), -1]


def test_white_of_16_bits(tmp_path, save):
    facts = look_at_mask(save(tmp_path / "m.png", np.array([[0, 65535]], np.uint16)))
    assert facts.numbers.tolist() == [0, 65535]
    assert unpack_color(int(facts.colors[1])) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_one_bit_is_0_and_1_black_and_white(tmp_path, save, suffix):
    facts = look_at_mask(save(tmp_path / f"m.{suffix}", np.array([[True, False, False]])))
    assert facts.numbers.tolist() == [0, 1] and facts.pixels.tolist() == [2, 1]
    assert facts.colors.tolist() == [0, pack_color((255, 255, 255))]


@pytest.mark.parametrize(("depth", "row"), [(2, b"\x1b"), (4, b"\x01\x23")])
def test_few_bits_are_not_stretched(tmp_path, depth, row):
    (tmp_path / "m.png").write_bytes(png(1, 4, depth, 0, [row]))
    facts = look_at_mask(tmp_path / "m.png")
    assert facts.numbers.tolist() == [0, 1, 2, 3]
    assert facts.colors[-1] == pack_color((255, 255, 255) if depth == 2 else (51, 51, 51))


@pytest.mark.parametrize("suffix", ["png", "tif", "gif"])
def test_palette(tmp_path, suffix):
    colors = [(0, 0, 0), (9, 8, 7), (200, 100, 50)]
    palette([[1, 2], [0, 1]], colors).save(tmp_path / f"m.{suffix}")
    facts = look_at_mask(tmp_path / f"m.{suffix}")
    assert facts.kind == "palette" and facts.numbers.tolist() == [0, 1, 2]
    assert [unpack_color(color) for color in facts.colors.tolist()] == colors


def test_palette_of_greys_is_grey(tmp_path):
    Image.fromarray(IDS).convert("P").save(tmp_path / "m.png")
    assert look_at_mask(tmp_path / "m.png").kind == "grey"


def test_palette_with_transparent_entries(tmp_path):
    palette([[1, 2], [0, 1]], [(0, 0, 0), (9, 8, 7), (1, 1, 0)]).save(
        tmp_path / "m.png", transparency=1
    )
    assert look_at_mask(tmp_path / "m.png").transparent == 2


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_three_channels(tmp_path, save, alpha, suffix):
    opaque = np.full((2, 2, 1), 255, np.uint8)
    image = Image.fromarray(np.concatenate([PAINTED, opaque], -1) if alpha else PAINTED)
    image.save(tmp_path / f"m.{suffix}", lossless=True)
    facts = look_at_mask(tmp_path / f"m.{suffix}")
    assert facts.kind == "colour" and facts.numbers is None and not facts.lossy
    found = dict(zip(map(unpack_color, facts.colors.tolist()), facts.pixels.tolist(), strict=True))
    assert found == {(255, 0, 0): 1, (0, 0, 255): 1, (0, 255, 0): 2}


@pytest.mark.parametrize("copies", [(1, 1, 1), (1, 0, 0)])
def test_numbers_in_three_channels(tmp_path, save, copies):
    mask = IDS[..., None] * np.array(copies, np.uint8)
    facts = look_at_mask(save(tmp_path / "m.png", mask))
    assert facts.kind == "colour" and facts.numbers.tolist() == [0, 1, 2, 3, 255]


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("jpg", {}), ("webp", {"quality": 90}), ("tif", {"compression": "jpeg"})],
)
def test_compression_that_changes_values(tmp_path, suffix, options):
    Image.fromarray(PAINTED).save(tmp_path / f"m.{suffix}", **options)
    assert look_at_mask(tmp_path / f"m.{suffix}").lossy


def test_places_and_numbers_of_pixels(tmp_path, save, rng):
    mask = rng.integers(0, 3, (37, 41, 3), np.uint8) * 90
    scan = scan_mask(save(tmp_path / "m.png", mask))
    packed = mask.astype(int) @ (1, 256, 65536)
    values, first, pixels = np.unique(packed, return_index=True, return_counts=True)
    np.testing.assert_array_equal(scan.facts.colors, values)
    np.testing.assert_array_equal(scan.facts.first, first)
    np.testing.assert_array_equal(scan.facts.pixels, pixels)
    np.testing.assert_array_equal(scan.paint(scan.facts.colors), packed)


def test_a_hundred_thousand_colours(tmp_path, save):
    rows = np.arange(100_000).reshape(250, 400)
    mask = np.stack([rows & 255, rows >> 8 & 255, rows >> 16], -1).astype(np.uint8)
    assert len(look_at_mask(save(tmp_path / "m.png", mask)).colors) == 100_000


@pytest.mark.parametrize(
    ("name", "picture", "message"),
    [
        ("m.png", np.zeros((2, 2, 4), np.uint8), "4 pixels are transparent; save it without alpha"),
        ("m.png", np.array([[[1, 9]]], np.uint8), "1 pixel are transparent"),
        (
            "m.tif",
            np.array([[0.5, 1]], np.float32),
            r"no whole numbers .such as 0.5.*save it as an",
        ),
        ("m.tif", np.array([[np.nan, 1]], np.float32), "no whole numbers .such as nan"),
        ("m.tif", np.array([[1e12, 1]], np.float32), "no whole numbers .too large"),
    ],
)
def test_what_holds_no_classes(tmp_path, save, name, picture, message):
    with pytest.raises(DataError, match=f"{name}: .*{message}"):
        look_at_mask(save(tmp_path / name, picture))


@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp"])
def test_several_pictures_in_a_file_are_refused(tmp_path, suffix):
    pages = [Image.fromarray(np.full((4, 5), value, np.uint8)) for value in (0, 90, 200)]
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"m.{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)
    with pytest.raises(DataError, match=f"m.{suffix}: holds 3 pictures, but a mask is one; save"):
        look_at_mask(path)


def test_smaller_copies_in_a_tiff_do_not_count(tmp_path):
    """As map makers write them, so that a viewer need not read everything."""
    mask = Image.fromarray(np.kron(IDS, np.ones((2, 2), np.uint8)))
    half = Image.fromarray(IDS)
    half.encoderinfo = {"tiffinfo": {254: 1}}  # a copy in another resolution
    mask.save(tmp_path / "m.tif", save_all=True, append_images=[half])
    facts = look_at_mask(tmp_path / "m.tif")
    assert facts.size == (4, 6) and facts.numbers.tolist() == [0, 1, 2, 3, 255]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_three_channels_of_16_bits_are_refused(tmp_path, suffix):
    cv2.imwrite(str(tmp_path / f"m.{suffix}"), np.full((4, 4, 3), 3, np.uint16))
    with pytest.raises(DataError, match=f"m.{suffix}: pixel format RGB of 16 bits holds no class"):
        look_at_mask(tmp_path / f"m.{suffix}")


def test_four_inks_are_refused(tmp_path):
    Image.fromarray(IDS).convert("CMYK").save(tmp_path / "m.tif")
    with pytest.raises(DataError, match="pixel format CMYK of 8 bits holds no classes"):
        look_at_mask(tmp_path / "m.tif")
