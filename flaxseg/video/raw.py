"""Uncompressed frames with their times, as ffmpeg takes them from a pipe.

Matroska (RFC 9559) with one cluster a frame: of the containers that ffmpeg reads from a pipe, raw
frames alone have no times.
"""

from typing import Final

import numpy as np

FORMAT: Final = "matroska"
"""The name by which ffmpeg knows it."""

SECOND = 10**9
"""In which times count; they are nanoseconds."""

_UNKNOWN_SIZE = b"\x01" + b"\xff" * 7
_FOURCC = {3: b"RGB\x18", 2: b"Y800"}
_BLOCK_HEAD = b"\x81\x00\x00\x00"  # track 1, at the time of its cluster, no flags


def head(picture: np.ndarray) -> bytes:
    """What comes before all frames.

    Args:
        picture: the first, (H, W, 3) RGB or (H, W) grey, uint8; the others are like it.
    """
    size = _number("B0", picture.shape[1]) + _number("BA", picture.shape[0])
    picture_kind = _element("E0", size + _element("2EB524", _FOURCC[picture.ndim]))
    which = _number("D7", 1) + _number("73C5", 1) + _number("83", 1)  # track 1 is a video
    which += _element("22B59C", b"und") + _element("86", b"V_UNCOMPRESSED")
    names = _element("4D80", b"flaxseg") + _element("5741", b"flaxseg")
    return b"".join(
        [
            _element("1A45DFA3", _element("4282", b"matroska") + _number("4287", 4)),
            bytes.fromhex("18538067") + _UNKNOWN_SIZE,
            _element("1549A966", _number("2AD7B1", 1) + names),  # times in nanoseconds
            _element("1654AE6B", _element("AE", which + picture_kind)),
        ]
    )


def frame(picture: np.ndarray, time: int, duration: int) -> bytes:
    """A frame that is shown at a time for a duration, in nanoseconds."""
    block = _element("A1", _BLOCK_HEAD + picture.tobytes()) + _number("9B", duration)
    return _element("1F43B675", _number("E7", time) + _element("A0", block))


def _element(identity: str, content: bytes) -> bytes:
    return bytes.fromhex(identity) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def _number(identity: str, value: int) -> bytes:
    return _element(identity, value.to_bytes(8, "big"))
