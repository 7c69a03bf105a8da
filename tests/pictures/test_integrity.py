import io

import numpy as np
import pytest
from PIL import Image

from flaxseg.errors import DataError
from flaxseg.pictures.integrity import damage
from flaxseg.pictures.photos import read_photo


def encoded(rng, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(buffer, kind, **options)
    return bytearray(buffer.getvalue())


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"quality": 98})],
)
def test_whole_files_pass(rng, kind, options):
    data = encoded(rng, kind, **options)
    assert damage(bytes(data)) is None
    assert damage(bytes(data + b"rest")) is None


def test_jpeg_with_restart_marks_passes(rng):
    data = encoded(rng, "JPEG", restart_marker_blocks=2)
    assert b"\xff\xd3" in data and damage(bytes(data)) is None


def test_every_changed_byte_of_a_png_is_found(rng):
    data = encoded(rng, "PNG")
    for position in range(8, len(data), 61):
        data[position] ^= 0x10
        assert damage(bytes(data)) is not None, position
        data[position] ^= 0x10


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_zeros_instead_of_the_rest(tmp_path, rng, kind, share):
    """What a download leaves that had reserved its space; Pillow reads such a JPEG as if whole."""
    data = encoded(rng, kind)
    cut = int(share * len(data))
    data[cut:] = bytes(len(data) - cut)
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"/a\..*: is no readable picture \(.*; re"):
        read_photo(path)


def test_jpeg_that_ends_early(rng):
    data = encoded(rng, "JPEG")
    assert damage(bytes(data[:-2])) == "ends before its end mark"
    assert damage(bytes(data[:300])) == "ends before its end mark"
    data[1200:1202] = b"\xff\x13"  # a marker in the middle of the code, with a wild length
    assert damage(bytes(data)) is not None


def test_other_files_are_not_judged():
    assert damage(b"GIF89a") is None and damage(b"") is None
