"""Finds damage in picture files that decoders pass over.

Pillow does not look at the checksums of a PNG's pixel data, and libjpeg fills what is missing of a
JPEG with grey.
"""

import zlib

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_MAGIC = b"\xff\xd8"
_LONE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # without a length: TEM, RST0 to RST7, SOI
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA


def damage(data: bytes) -> str | None:
    """What is wrong with the bytes of a PNG or JPEG file, in words; None if nothing is found.

    A PNG is checked by its checksums. Of a JPEG, which has none, only the structure is checked:
    overwritten bytes may pass where they happen to be valid code.
    """
    if data.startswith(PNG_MAGIC):
        return _png_damage(data)
    if data.startswith(_JPEG_MAGIC):
        return _jpeg_damage(data)
    return None


def _png_damage(data: bytes) -> str | None:
    """Follows the chunks: length, type, content, CRC-32 of type and content (PNG, section 5)."""
    position = len(PNG_MAGIC)
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8]
        if end + 4 > len(data):
            break
        if zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return f"checksum of chunk {kind.decode('latin-1')} at byte {position} is wrong"
        if kind == b"IEND":
            return None
        position = end + 4
    return "ends before its end mark"


def _jpeg_damage(data: bytes) -> str | None:
    """Follows the segments (ITU-T T.81, annex B) from scan to scan up to the end mark."""
    position = 0
    while position + 1 < len(data):
        if data[position] != 0xFF:
            return f"byte {position} should begin a segment"
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == _END_OF_IMAGE:
            return None
        elif marker in _LONE_MARKERS:
            position += 2
        else:
            length = int.from_bytes(data[position + 2 : position + 4])
            position += 2 + length
            if marker == _START_OF_SCAN:
                position = _end_of_scan(data, position)
    return "ends before its end mark"


def _end_of_scan(data: bytes, position: int) -> int:
    """The place of the first marker after entropy-coded data, where FF 00 stands for FF."""
    while True:
        position = data.find(0xFF, position)
        if position < 0:
            return len(data)
        following = data[position + 1 : position + 2]
        if following not in (b"\x00", b"") and not 0xD0 <= following[0] <= 0xD7:
            return position
        position += 2
