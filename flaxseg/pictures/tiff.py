"""What the tags of a TIFF tell, before its pixels are decoded."""

import io
import struct
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

from PIL import TiffImagePlugin

_HEADERS = {b"II*\0": ("<L", 8), b"MM\0*": (">L", 8), b"II+\0": ("<Q", 16), b"MM\0+": (">Q", 16)}
"""Of each kind of file, how the place of its first directory is written, and where that ends."""

_BITS, _SAMPLES, _PLANAR, _FORMAT = 258, 277, 284, 339
_FORMATS = {1: "", 2: " with signs", 3: " of floats", 5: " of complex integers", 6: " of complex"}
_MOST = 6
"""Bands that Pillow reads."""


def read_tags(file: BinaryIO, wanted: Iterable[int]) -> Mapping[int, Any]:
    """Those of some tags that the first picture of a TIFF has; none if the file is another one.

    Raises:
        ValueError: they are damaged.
    """
    head = file.read(16)
    if head[:4] not in _HEADERS:
        return {}
    form, end = _HEADERS[head[:4]]
    try:
        found = TiffImagePlugin.ImageFileDirectory_v2(head[:end])
        (place,) = struct.unpack_from(form, head, end - struct.calcsize(form))
        file.seek(place)
        found.load(file)
        return {tag: found[tag] for tag in wanted if tag in found}
    except Exception as error:  # damaged tags raise errors of many kinds
        raise ValueError(str(error).strip() or type(error).__name__) from error


class Bands(NamedTuple):
    """What a TIFF holds of each pixel.

    Attributes:
        count: numbers of a pixel.
        bits: of each number.
        apart: each band is stored by itself.
        kind: of number, in words; empty: without sign.
    """

    count: int
    bits: int
    apart: bool
    kind: str

    @property
    def unread(self) -> bool:
        """Whether Pillow reads false pixels, or complains to the terminal."""
        return self.count > _MOST or (self.apart and self.bits != 8)

    def __str__(self) -> str:
        apart = ", each stored apart" * self.apart
        return f"{self.count} band{'s' * (self.count > 1)} of {self.bits} bits{self.kind}{apart}"


def bands_of(data: bytes) -> Bands | None:
    """The bands of a TIFF file; None of other files, and where its tags do not tell."""
    try:
        tags = read_tags(io.BytesIO(data), (_BITS, _SAMPLES, _PLANAR, _FORMAT))
        count, planar = int(tags.get(_SAMPLES, 1)), tags.get(_PLANAR, 1)
        bits, kind = max(tags.get(_BITS, (1,))), max(tags.get(_FORMAT, (1,)))
    except (ValueError, TypeError):
        return None
    return Bands(count, bits, planar == 2 and count > 1, _FORMATS.get(kind, "")) if tags else None
