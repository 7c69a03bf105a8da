"""Reads photos: one set of rules, in training, checks and prediction alike.

| what a file holds | becomes |
|---|---|
| grey, palette, CMYK, YCbCr | RGB |
| 16 bits per channel (or 12, in TIFF) | 8, the high ones |
| transparent pixels | as on white paper |
| an EXIF orientation | turned and mirrored as a viewer does |
| several pictures (GIF, WebP, TIFF, APNG) | the first |
| more than red, green and blue, and not alpha (TIFF) | these |
| a colour profile | not applied: the values count as they are stored |
"""

import dataclasses
import io
import os
from typing import NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image

from flaxseg.errors import DataError
from flaxseg.pictures.open import (
    JPEGS,
    MAX_PIXELS,
    decode,
    explained,
    open_header,
    png_depth,
    read_bytes,
)
from flaxseg.pictures.tiff import bands_of

_OPAQUE_MODES = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"}
_ALPHA_MODES = {"LA", "PA", "La", "RGBA", "RGBa"}
_WIDE_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # of TIFF
_DARK = 64
_UPRIGHT = 1
_INVERSE = {6: 8, 8: 6}  # the other orientations are their own


@dataclasses.dataclass(frozen=True)
class PhotoFacts:
    """What is to be known of a photo when it is read again.

    Attributes:
        size: height and width as it is stored.
        orientation: how it is to be turned and mirrored to be shown, EXIF's 1 to 8; 1 is not at
            all. See `turn`.
        plain: `decode_plain` gives the pixels as they are stored, bit for bit.
        remarks: what was assumed about the file, for a line of a report each.
    """

    size: tuple[int, int]
    orientation: int = _UPRIGHT
    plain: bool = False
    remarks: tuple[str, ...] = ()


class Photo(NamedTuple):
    """A photo that was looked at.

    Attributes:
        data: the bytes of the file.
        pixels: (H, W, 3) uint8 RGB.
        facts: what else is to be known of it.
    """

    data: bytes
    pixels: np.ndarray
    facts: PhotoFacts


def read_photo(
    path: str | os.PathLike[str],
    *,
    orientation: bool = True,
    published: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads a photo as a viewer shows it.

    Args:
        path: a PNG, JPEG, TIFF, BMP, WebP or GIF file, whatever its name.
        orientation: turns and mirrors the photo as its EXIF data say.
        published: the photo belongs to a benchmark that is used as it is stored: its orientation
            and alpha channel are ignored, and the end mark of a JPEG may be missing.
        max_pixels: the largest area that is read; 0 has no limit.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the file is missing, damaged, no picture or too large, or its pixels are of a
            kind that has no agreed brightness, such as floats.
        ConfigError: `max_pixels` is less than 0.
    """
    return _read(path, orientation, published, max_pixels).photo.pixels


def look_at_photo(
    path: str | os.PathLike[str],
    *,
    orientation: bool = True,
    published: bool = False,
    max_pixels: int = MAX_PIXELS,
    find_plain: bool = True,
    data: bytes | None = None,
) -> Photo:
    """Reads a photo as `read_photo` does, and finds out how it may be read the next time.

    Args:
        path: as for `read_photo`, and so are the other arguments.
        orientation: whether the pixels are turned; the facts do not depend on it.
        published: takes the photo as it is stored; the orientation counts as 1.
        max_pixels: the largest area that is read; 0 has no limit.
        find_plain: finds out whether the photo is plain, for which it is decoded once more.
        data: the bytes of the file where they are at hand; `path` then only names it.

    Returns:
        The bytes, the pixels and the facts.

    Raises:
        DataError: as `read_photo`.
        ConfigError: `max_pixels` is less than 0.
    """
    photo, stored, decodable = _read(path, orientation, published, max_pixels, data)
    plain = find_plain and decodable and _same(photo.data, stored)
    return photo._replace(facts=dataclasses.replace(photo.facts, plain=plain))


def decode_plain(data: bytes) -> np.ndarray:
    """The pixels of a plain photo as they are stored: fast, and without any check.

    Args:
        data: the bytes of a file of which `look_at_photo` has found that it is plain.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the bytes hold no picture.
    """
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise ValueError("the bytes hold no picture")
    return pixels


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A stored picture (H, W, …) as EXIF's `orientation`, 1 to 8, wants it shown."""
    turned = pixels.swapaxes(0, 1) if orientation > 4 else pixels
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(turned[rows, columns])


class _Reading(NamedTuple):
    """A photo whose facts lack `plain`, its pixels as stored, and whether OpenCV may know them."""

    photo: Photo
    stored: np.ndarray
    decodable: bool


def _read(
    path: str | os.PathLike[str],
    orientation: bool,
    published: bool,
    max_pixels: int,
    data: bytes | None = None,
) -> _Reading:
    data = read_bytes(path) if data is None else data
    with explained(path):
        picture = open_header(data, path, max_pixels)
        count = 1 if picture.format in JPEGS else getattr(picture, "n_frames", 1)
        depth, bands = _depth(data, picture), _bands_remark(data, picture)
        # Pillow turns a TIFF when it decodes it, and forgets the orientation.
        early = _orientation(picture) if picture.format == "TIFF" else None
        decode(data, picture, published=published)
        found = early or _orientation(picture)
        pixels, transparent = _as_rgb(path, picture, depth, published)
    if early:
        pixels = turn(pixels, _INVERSE.get(early, early))
    remarks = [
        f"the first of {count} pictures in the file" * (count > 1),
        bands,
        _depth_remark(depth, pixels) * (depth > 8),
        "transparent pixels, shown on white" * transparent,
    ]
    facts = PhotoFacts(
        size=(pixels.shape[0], pixels.shape[1]),
        orientation=_UPRIGHT if published else found,
        remarks=tuple(filter(None, remarks)),
    )
    shown = turn(pixels, facts.orientation) if orientation else pixels
    # The others have no chance, or OpenCV would complain about them on the terminal.
    decodable = picture.format in ("PNG", *JPEGS) and not picture.has_transparency_data
    return _Reading(Photo(data, shown, facts), pixels, decodable)


def _orientation(picture: Image.Image) -> int:
    try:
        found = picture.getexif().get(ExifTags.Base.Orientation, _UPRIGHT)
    except Exception:  # what damaged EXIF data raise differs; viewers show such photos as stored
        return _UPRIGHT
    return found if found in range(1, 9) else _UPRIGHT


def _depth(data: bytes, picture: Image.Image) -> int:
    """Bits per channel."""
    if picture.format == "TIFF":
        bits = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
        return max(bits)
    return png_depth(data)


def _bands_remark(data: bytes, picture: Image.Image) -> str:
    bands, read = bands_of(data), len(picture.getbands()) - (picture.mode == "RGBX")
    return f"the first {read} of {bands.count} bands" if bands and bands.count > read else ""


def _depth_remark(depth: int, pixels: np.ndarray) -> str:
    brightest = int(pixels.max())
    dark = f", and the brightest is {brightest} of 255" if brightest < _DARK else ""
    return f"{depth} bits, the high byte counts{dark}"


def _as_rgb(
    path: str | os.PathLike[str], picture: Image.Image, depth: int, published: bool
) -> tuple[np.ndarray, bool]:
    """The pixels (H, W, 3), and whether any was transparent."""
    if picture.mode in _WIDE_MODES:
        return _from_wide(picture, depth, published)
    if picture.mode not in _OPAQUE_MODES | _ALPHA_MODES:
        raise DataError(
            f"{path}: has pixels of the kind {picture.mode!r}, which have no agreed brightness; "
            "save it as 8-bit RGB"
        )
    if not picture.has_transparency_data:
        return np.asarray(picture.convert("RGB")), False
    picture = picture.convert("RGBA")
    if published:
        return np.asarray(picture.convert("RGB")), False
    transparent = bool(np.asarray(picture)[..., 3].min() < 255)
    paper = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(paper, picture).convert("RGB")), transparent


def _from_wide(picture: Image.Image, depth: int, published: bool) -> tuple[np.ndarray, bool]:
    """Grey of more than 8 bits, which Pillow leaves as it is."""
    values = np.asarray(picture)
    grey = (values >> (depth - 8)).astype(np.uint8)
    if getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    clear = values == picture.info.get("transparency", -1)
    transparent = bool(clear.any()) and not published
    if transparent:
        grey[clear] = 255
    return np.repeat(grey[..., None], 3, axis=2), transparent


def _same(data: bytes, pixels: np.ndarray) -> bool:
    """Whether OpenCV decodes to the same: found out, as a list of reasons would be incomplete."""
    try:
        return np.array_equal(decode_plain(data), pixels)
    except (ValueError, cv2.error):  # it has limits of its own
        return False


def encode_png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
