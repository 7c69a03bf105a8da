import io

import numpy as np
import pytest
from PIL import Image

from flaxseg.data.codings import ColorCoding, IndexCoding, TableCoding
from flaxseg.data.files import check_size, read_mask, read_pair
from flaxseg.data.problems import RangeError
from flaxseg.errors import DataError
from flaxseg.pictures.photos import decode_plain, read_training_image

IDS = np.array([[0, 1, 2], [3, 255, 0]], np.uint8)


@pytest.fixture
def picture(rng):
    return rng.integers(0, 256, (5, 7, 3), np.uint8)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_rgb_image_keeps_its_bytes(tmp_path, save, picture, suffix):
    path = save(tmp_path / f"a b.{suffix}", picture)
    data, image = read_training_image(path)
    assert data == path.read_bytes()
    np.testing.assert_array_equal(image, np.asarray(Image.open(path)))


def test_grey_image_becomes_rgb(tmp_path, save, picture):
    data, image = read_training_image(save(tmp_path / "a.png", picture[..., 0]))
    np.testing.assert_array_equal(image, np.repeat(picture[..., :1], 3, axis=-1))
    np.testing.assert_array_equal(decode_plain(data), image)


def test_palette_image_becomes_rgb(tmp_path, picture):
    Image.fromarray(picture).quantize(200).save(tmp_path / "a.png")
    expected = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    data, image = read_training_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(decode_plain(data), expected)


def test_opaque_alpha_is_dropped(tmp_path, save, picture):
    opaque = np.dstack((picture, np.full(picture.shape[:2], 255, np.uint8)))
    data, image = read_training_image(save(tmp_path / "a.png", opaque))
    np.testing.assert_array_equal(image, picture)
    np.testing.assert_array_equal(decode_plain(data), picture)


def test_orientation_tag_does_not_turn_the_image(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif)
    assert read_training_image(tmp_path / "a.jpg")[1].shape == picture.shape


def test_transparent_pixels_are_white(tmp_path, save, picture):
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[0, :3] = 0
    expected = np.where(alpha[..., None] == 0, 255, picture)
    data, image = read_training_image(save(tmp_path / "a.png", np.dstack((picture, alpha))))
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(decode_plain(data), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_high_byte_of_sixteen_bits_counts(tmp_path, channels):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 4, channels), 3000, np.uint16))
    data, image = read_training_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image, np.full((4, 4, 3), 3000 // 256, np.uint8))
    np.testing.assert_array_equal(decode_plain(data), image)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty file"), (b"no picture", "no PNG, JPEG")]
)
def test_file_that_is_no_picture(tmp_path, content, reason):
    (tmp_path / "a.png").write_bytes(content)
    for read in (read_training_image, read_mask):
        with pytest.raises(DataError, match=f"a.png: is no readable.*{reason}"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_file(tmp_path, save, rng, suffix):
    path = save(tmp_path / f"a.{suffix}", rng.integers(0, 256, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(DataError, match=f"a.{suffix}: is no readable"):
        read_training_image(path)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="gone.png: cannot be read .No such file"):
        read_mask(tmp_path / "gone.png")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mask_of_8_and_16_bits(tmp_path, save, dtype):
    path = save(tmp_path / "m.png", IDS.astype(dtype))
    ids = IndexCoding(4).read(path)
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, IDS)


def test_mask_with_palette_is_read_by_index(tmp_path):
    mask = Image.fromarray(IDS).convert("P")
    mask.putpalette([200, 100, 50] * 256)
    mask.save(tmp_path / "m.png")
    np.testing.assert_array_equal(IndexCoding(4).read(tmp_path / "m.png"), IDS)


def test_mask_of_one_bit(tmp_path, save):
    path = save(tmp_path / "m.png", np.array([[True, False]]))
    assert IndexCoding(2).read(path).tolist() == [[1, 0]]


def test_other_unlabelled_value_becomes_255(tmp_path, save):
    path = save(tmp_path / "m.png", np.array([[0, 3, 255]], np.uint8))
    assert IndexCoding(3, unlabelled=(3, 255)).read(path).tolist() == [[0, 255, 255]]


@pytest.mark.parametrize("value", [4, 3000])
def test_id_out_of_range(tmp_path, save, value):
    mask = np.zeros((4, 4), np.uint16)
    mask[2, 1:3] = value
    path = save(tmp_path / "m.png", mask)
    message = (
        rf"m.png: class id {value} in 2 pixels \(first at row 2, column 1\); allowed are 0 to 3"
    )
    with pytest.raises(DataError, match=message):
        IndexCoding(4).read(path)


def test_rgb_mask_where_ids_are_expected(tmp_path, save):
    mask = np.zeros((4, 4, 3), np.uint8)
    mask[1, 2] = (64, 0, 128)
    path = save(tmp_path / "m.png", mask)
    message = (
        r"m.png: is an RGB mask \(colour \(64, 0, 128\) at row 1, column 2\), "
        "but class ids are expected: 0 to 10, and 255"
    )
    for first_channel in (False, True):
        with pytest.raises(DataError, match=message):
            IndexCoding(11, first_channel=first_channel).read(path)


@pytest.mark.parametrize("copies", [(1, 1, 1), (1, 0, 0)])
def test_first_channel_of_rgb_mask(tmp_path, save, copies):
    mask = IDS[..., None] * np.array(copies, np.uint8)
    path = save(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(IndexCoding(4, first_channel=True).read(path), IDS)
    with pytest.raises(DataError, match="m.png: is an RGB mask"):
        IndexCoding(4).read(path)


def test_jpeg_mask_is_refused(tmp_path, save):
    path = save(tmp_path / "m.jpg", IDS)
    with pytest.raises(DataError, match="m.jpg: is a JPEG, whose compression changes class ids"):
        read_mask(path)


def test_mask_of_unknown_kind_is_refused(tmp_path, save):
    Image.fromarray(IDS).convert("CMYK").save(tmp_path / "m.jpg")
    with pytest.raises(DataError, match="m.jpg: is a JPEG"):
        read_mask(tmp_path / "m.jpg")
    transparent = save(tmp_path / "m.png", np.zeros((2, 2, 4), np.uint8))
    with pytest.raises(DataError, match="m.png: 4 pixels are transparent"):
        read_mask(transparent)


COLORS = ColorCoding({(255, 0, 0): 0, (0, 255, 0): 1, (0, 0, 255): 2}, "label_colors.txt")
PAINTED = np.array([[(255, 0, 0), (0, 0, 255)], [(0, 255, 0), (0, 255, 0)]], np.uint8)


def test_colours_become_ids(tmp_path, save):
    path = save(tmp_path / "m.png", PAINTED)
    assert COLORS.read(path).tolist() == [[0, 2], [1, 1]]


def test_colours_of_a_palette_file_become_ids(tmp_path):
    Image.fromarray(PAINTED).quantize(8).save(tmp_path / "m.png")
    assert COLORS.read(tmp_path / "m.png").tolist() == [[0, 2], [1, 1]]


def test_unknown_colour(tmp_path, save):
    mask = PAINTED.copy()
    mask[1, 0] = (1, 2, 3)
    path = save(tmp_path / "m.png", mask)
    message = (
        r"m.png: colour \(1, 2, 3\) at row 1, column 0 \(1 pixel of unknown colour\) is none of "
        "the 3 colours of label_colors.txt"
    )
    with pytest.raises(DataError, match=message):
        COLORS.read(path)


def test_ids_where_colours_are_expected(tmp_path, save):
    path = save(tmp_path / "m.png", IDS)
    message = r"m.png: has a single channel \(values 0 to 255\), but an RGB mask in the 3 colours"
    with pytest.raises(DataError, match=message):
        COLORS.read(path)


def test_sizes_must_agree(tmp_path):
    image, label = np.zeros((4, 6, 3)), np.zeros((2, 3))
    message = "l.png: is 3 x 2, but its image .*i.png is 6 x 4"
    with pytest.raises(DataError, match=message):
        check_size(tmp_path / "i.png", image, tmp_path / "l.png", label)


def test_cmyk_image_becomes_rgb(tmp_path):
    flat = np.broadcast_to(np.array((200, 100, 30), np.uint8), (16, 16, 3))
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    data, image = read_training_image(tmp_path / "a.jpg")
    assert np.abs(image.astype(int) - flat).max() <= 3
    np.testing.assert_array_equal(decode_plain(data), image)


def oriented(path, picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_label_map_of_the_turned_picture_turns_it(tmp_path, save, picture, suffix):
    path = oriented(tmp_path / f"a.{suffix}", picture, 6)
    stored = np.asarray(Image.open(path))
    label = save(tmp_path / "m.png", np.zeros((7, 5), np.uint8))
    data, image, _ = read_pair(path, label, IndexCoding(2))
    np.testing.assert_array_equal(image, np.rot90(stored, -1))
    shown = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(np.asarray(shown), image)
    assert shown.getexif().get(0x0112, 1) == 1


def test_label_map_of_the_stored_picture_keeps_it(tmp_path, save, picture):
    path = oriented(tmp_path / "a.png", picture, 8)
    label = save(tmp_path / "m.png", np.zeros((5, 7), np.uint8))
    data, image, _ = read_pair(path, label, IndexCoding(2))
    assert data == path.read_bytes()
    np.testing.assert_array_equal(image, picture)


@pytest.mark.parametrize(("orientation", "size"), [(3, (5, 7)), (2, (5, 7)), (6, (5, 5))])
def test_orientation_that_no_size_decides_is_refused(tmp_path, save, picture, orientation, size):
    path = oriented(tmp_path / "a.png", picture[: size[0], : size[1]], orientation)
    label = save(tmp_path / "m.png", np.zeros(size, np.uint8))
    message = f"a.png: its EXIF orientation {orientation} turns or mirrors it.*fits either way; s"
    with pytest.raises(DataError, match=message):
        read_pair(path, label, IndexCoding(2))
    # Everybody uses a published picture as it is stored.
    _, image, _ = read_pair(path, label, IndexCoding(2), published=True)
    assert image.shape[:2] == size


@pytest.mark.parametrize("size", [(5, 8), (6, 7), (4, 7)])
def test_mask_that_is_off_by_a_pixel_is_refused(tmp_path, save, picture, size):
    path = save(tmp_path / "i.png", picture)
    label = save(tmp_path / "m.png", np.zeros(size, np.uint8))
    with pytest.raises(DataError, match=f"m.png: is {size[1]} x {size[0]}, but its image .*7 x 5"):
        read_pair(path, label, IndexCoding(2))


@pytest.mark.parametrize("bits", [2, 4])
def test_mask_of_few_bits_is_not_stretched(tmp_path, bits):
    """Pillow shows grey PNGs of 2 and 4 bits with values of 8."""
    import struct
    import zlib

    def chunk(kind, data):
        content = kind + data
        return struct.pack(">I", len(data)) + content + struct.pack(">I", zlib.crc32(content))

    values, per_byte = [0, 1, 2, 3], 8 // bits
    packed = [0] * (len(values) // per_byte)
    for i, value in enumerate(values):
        packed[i // per_byte] |= value << (8 - bits * (i % per_byte + 1))
    header = struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0)
    rows = zlib.compress(bytes([0, *packed]))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "m.png").write_bytes(png)
    assert IndexCoding(4).read(tmp_path / "m.png").tolist() == [values]


@pytest.mark.parametrize("published", [False, True])
def test_picture_of_another_format_than_its_name_says(tmp_path, picture, published):
    Image.fromarray(picture).save(tmp_path / "a.jpg", "BMP")
    data, image = read_training_image(tmp_path / "a.jpg", published=published)
    np.testing.assert_array_equal(image, picture)
    np.testing.assert_array_equal(decode_plain(data), picture)


TABLE = TableCoding({0: 255, 7: 0, 8: 1, 300: 2})


def test_table(tmp_path, save):
    path = save(tmp_path / "m.png", np.array([[0, 7, 8, 300]], np.uint16))
    assert TABLE.read(path).tolist() == [[255, 0, 1, 2]]


def test_number_that_the_table_lacks(tmp_path, save):
    path = save(tmp_path / "m.png", np.array([[7, 9, 9, 400]], np.uint16))
    message = r"m.png: class id 9, 400 in 3 pixels .*; allowed are 0, 7 to 8, 300$"
    with pytest.raises(RangeError, match=message) as caught:
        TABLE.read(path)
    assert caught.value.values == {9: 2, 400: 1}
    rgb = save(tmp_path / "rgb.png", np.full((2, 2, 3), (7, 7, 8), np.uint8))
    with pytest.raises(DataError, match="is an RGB mask .*but numbers 0, 7 to 8, 300 are expected"):
        TABLE.read(rgb)
