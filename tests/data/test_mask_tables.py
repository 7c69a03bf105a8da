"""Masks that were checked are read by tables: to the class ids of the check, or not at all."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from flaxseg.data.classes import Classes
from flaxseg.data.mask_files import look_at_mask
from flaxseg.data.mask_tables import MaskTables
from flaxseg.data.masks import Reading, choose
from flaxseg.labels import LabelSet

BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (200, 10, 20), (20, 10, 200)
SHADES = ((64, 64, 64), (200, 200, 200), RED)
LABELS = LabelSet("x", ("a", "b", "c"), (BLACK, RED, BLUE))
TWO = Classes(LabelSet("x", ("a", "b"), (BLACK, WHITE)), source="classes.txt")
NUMBERS = Classes(LABELS, source="classes.txt")
MERGED = Classes(LABELS, ids={0: 255, 7: 0, 8: 0, 200: 1, 255: 2}, source="classes.json")
COLORS = Classes(LABELS, colors={BLACK: 0, RED: 1, BLUE: 2, WHITE: 255}, source="classes.json")
GREYS = Classes(LABELS, colors={color: i for i, color in enumerate(SHADES)}, source="classes.json")
NEAREST = Classes(LABELS, colors=COLORS.colors, nearest=True, source="classes.json")


def blocks(values):
    """A mask of these values, each in some blocks, (9, 15) and more axes if they have any."""
    values = np.array(values)
    places = np.random.default_rng(0).permutation(np.arange(15) % len(values)).reshape(3, 5)
    return values[np.kron(places, np.ones((3, 3), int))]


def grey(*values, dtype=np.uint8):
    return Image.fromarray(blocks(values).astype(dtype))


def rgb(*colors):
    return Image.fromarray(blocks(colors).astype(np.uint8))


def indexed(palette, *indices):
    image = grey(*indices)
    image.putpalette(np.array(palette, np.uint8).ravel().tolist())
    return image


def even(*numbers):
    return rgb(*((number,) * 3 for number in numbers))


def small(depth, *values):
    """The bytes of a grey PNG of 2 or 4 bits, which Pillow does not write."""
    mask = blocks(values)
    bits = np.unpackbits(mask.astype(np.uint8)[..., None], axis=-1)[..., -depth:]
    rows = np.packbits(bits.reshape(len(mask), -1), axis=-1)
    header = struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], depth, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


TURNED = Image.Exif()
TURNED[0x0112] = 6
VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), *[(0, 0, 9)] * 252, (224, 224, 192)]
OWN = [BLUE, WHITE, BLACK, RED]

QUICK = {
    "grey": (grey(0, 1, 2, 255), NUMBERS, {}),
    "grey, merged": (grey(0, 7, 8, 200, 255), MERGED, {}),
    "grey, black and white": (grey(0, 255), TWO, {}),
    "grey by colour": (grey(64, 200), GREYS, {}),
    "grey, turned": (grey(0, 1, 2), NUMBERS, {"exif": TURNED}),
    "RGB by colour": (rgb(BLACK, RED, BLUE, WHITE), COLORS, {}),
    "RGB, black and white": (even(0, 255), TWO, {}),
    "equal channels by number": (even(0, 1, 2, 255), NUMBERS, {}),
    "red alone by number": (rgb(BLACK, (1, 0, 0), (2, 0, 0)), NUMBERS, {}),
    "palette by colour": (indexed(OWN, 3, 0, 2), COLORS, {"others": [rgb(RED, BLUE)] * 2}),
    "palette by index": (indexed(VOC, 0, 1, 2, 255), NUMBERS, {"others": [grey(0, 1)]}),
    "palette by index, transparent": (indexed(VOC, 0, 1, 2), NUMBERS, {"transparency": 1}),
    "palette, black and white": (indexed([WHITE, BLACK], 0, 1), TWO, {}),
    "palette of one bit by index": (indexed([BLUE, RED], 0, 1), NUMBERS, {"bits": 1}),
    "palette of 16 by colour": (indexed(OWN, 3, 0, 2), COLORS, {"bits": 4}),
    "palette of the greys": (grey(0, 1, 2, 255).convert("P"), NUMBERS, {}),
}
CAREFUL = {
    "one bit": (grey(0, 1, dtype=bool), TWO, {}),
    "two bits": (small(2, 0, 1, 2), NUMBERS, {}),
    "four bits": (small(4, 0, 1, 2), NUMBERS, {}),
    "sixteen bits": (grey(0, 7, 200, 255, dtype=np.uint16), MERGED, {}),
    "nearest colour": (rgb(BLACK, RED, (190, 12, 25), BLUE), NEAREST, {}),
    "opaque alpha": (rgb(BLACK, RED, BLUE).convert("RGBA"), COLORS, {}),
    "grey of which one is transparent": (grey(0, 1, 2), NUMBERS, {"transparency": 1}),
    "TIFF": (grey(0, 1, 2), NUMBERS, {"format": "TIFF"}),
    "BMP": (rgb(BLACK, RED, BLUE), COLORS, {"format": "BMP"}),
    # The palette's own colours would be black and white, the greys are those of the class file.
    "palette of greys among palettes": (
        grey(64, 200).convert("P"),
        GREYS,
        {"others": [indexed(VOC, 0, 1, 2)] * 3},
    ),
}


@pytest.fixture
def read(tmp_path):
    """Class ids of a mask by tables, and as at the check, in a folder with others."""

    def make(mask, classes, others=(), **options):
        path = tmp_path / "mask.png"
        if isinstance(mask, bytes):
            path.write_bytes(mask)
        else:
            mask.save(path, **options)
        for number, other in enumerate(others):
            other.save(tmp_path / f"{number}.png")
        facts = {file.name: look_at_mask(file) for file in tmp_path.iterdir()}
        reading = choose(facts, classes)
        assert reading.problem("mask.png", facts["mask.png"]) is None
        tables = MaskTables(Reading.from_json(reading.to_json()))
        return tables.read(path.read_bytes()), reading.read(path)

    return make


@pytest.mark.parametrize("case", QUICK)
def test_common_masks_are_read_by_tables(read, case):
    mask, classes, options = QUICK[case]
    quick, careful = read(mask, classes, **options)
    assert quick.dtype == np.uint8 and len(np.unique(quick)) > 1
    np.testing.assert_array_equal(quick, careful)


@pytest.mark.parametrize("case", CAREFUL)
def test_other_masks_are_left_to_the_careful_reader(read, case):
    mask, classes, options = CAREFUL[case]
    quick, careful = read(mask, classes, **options)
    assert quick is None or np.array_equal(quick, careful)
    assert len(np.unique(careful)) > 1


def test_what_is_no_picture_is_left_to_the_careful_reader():
    reading = choose({}, NUMBERS)
    assert MaskTables(reading).read(b"\x89PNG\r\n\x1a\n" + bytes(16) + b"\x08\0") is None
    assert MaskTables(reading).read(b"words") is None
