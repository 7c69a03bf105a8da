"""TIFFs of more, deeper and separate bands: right pixels, or a word about them."""

import struct

import numpy as np
import pytest

from flaxseg.errors import DataError
from flaxseg.pictures import look_at_photo

RGB, GREY = 2, 1
WIDTH, BITS, KIND, EXTRA, PLANAR = 256, 258, 339, 338, 284


def tiff(values, photometric, apart=False):
    """The bytes of a TIFF with one strip for each plane; values (H, W, bands)."""
    height, width, count = values.shape
    planes = np.moveaxis(values, -1, 0) if apart else values[None]
    strips = [np.ascontiguousarray(plane).tobytes() for plane in planes]
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = {WIDTH: [width], 257: [height], 259: [1], 262: [photometric], 277: [count]}
    tags |= {BITS: [8 * values.itemsize] * count, KIND: [kind] * count, 278: [height]}
    tags |= {PLANAR: [2 if apart else 1], 273: [0] * len(strips), 279: [*map(len, strips)]}
    extra = count - (3 if photometric == RGB else 1)
    tags |= {EXTRA: [0] * extra} if extra else {}
    at = 8 + 2 + 12 * len(tags) + 4
    more = {tag: 4 * len(found) for tag, found in tags.items() if len(found) > 1}
    start = at + sum(more.values())
    tags[273] = [start + sum(map(len, strips[:i])) for i in range(len(strips))]
    entries, rest = b"", b""
    for tag, found in sorted(tags.items()):
        content = struct.pack(f"<{len(found)}L", *found)
        place = struct.pack("<L", at + len(rest)) if len(found) > 1 else content
        rest += content if len(found) > 1 else b""
        entries += struct.pack("<HHL", tag, 4, len(found)) + place
    head = b"II*\0" + struct.pack("<LH", 8, len(tags))
    return head + entries + bytes(4) + rest + b"".join(strips)


def values_of(count, dtype):
    values = np.random.default_rng(0).integers(0, 2**15, (4, 6, count))
    return (values >> (8 if dtype == "u1" else 0)).astype(dtype)


@pytest.mark.parametrize("apart", [False, True])
def test_three_bands_are_red_green_and_blue(apart):
    values = values_of(3, "u1")
    photo = look_at_photo("photo.tif", data=tiff(values, RGB, apart))
    np.testing.assert_array_equal(photo.pixels, values)
    assert photo.facts.remarks == ()


@pytest.mark.parametrize(("count", "photometric"), [(4, RGB), (5, RGB), (6, RGB), (2, GREY)])
def test_bands_that_are_left_out_are_told_of(count, photometric):
    values = values_of(count, "u1")
    photo = look_at_photo("photo.tif", data=tiff(values, photometric))
    read = 3 if photometric == RGB else 1
    np.testing.assert_array_equal(photo.pixels, np.broadcast_to(values[..., :read], (4, 6, 3)))
    assert photo.facts.remarks == (f"the first {read} of {count} bands",)


REFUSED = [
    (3, "u2", RGB, True, "3 bands of 16 bits, each stored apart"),
    (4, "u1", GREY, False, "4 bands of 8 bits"),
    (4, "u2", GREY, True, "4 bands of 16 bits, each stored apart"),
    (8, "u2", RGB, False, "8 bands of 16 bits"),
    (3, "f4", RGB, False, "3 bands of 32 bits of floats"),
    (3, "i2", RGB, False, "3 bands of 16 bits with signs"),
]


@pytest.mark.parametrize(("count", "dtype", "photometric", "apart", "found"), REFUSED)
def test_what_pillow_does_not_know_is_refused_in_words(
    count, dtype, photometric, apart, found, caplog
):
    data = tiff(values_of(count, dtype), photometric, apart)
    expected = "which are not read; save one band, or red, green and blue, with 8 bits each"
    with pytest.raises(DataError, match=rf"^photo\.tif: has {found}, {expected}$"):
        look_at_photo("photo.tif", data=data)
    assert not caplog.records  # they would be printed
