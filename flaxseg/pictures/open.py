"""Opens picture files, and refuses by name what is damaged.

Pillow does the reading here because it reports a damaged file; OpenCV returns what it has.
"""

import io
import pathlib

import numpy as np
from PIL import Image

from flaxseg.errors import DataError
from flaxseg.pictures.integrity import PNG_MAGIC, damage

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Endings of the files that count as pictures, in lower case."""

JPEGS = ("JPEG", "MPO")  # MPO is a JPEG with further ones behind it
_FORMATS = ("PNG", "JPEG")
# Published JPEG files turn out to be GIFs, bitmaps and others.
_PUBLISHED_FORMATS = (*_FORMATS, "GIF", "BMP", "TIFF", "WEBP")
_PNG_DEPTH_AT = 24  # bits per channel: the ninth byte of the IHDR chunk's data; then its colours
_GREY = 0


def open_picture(path: pathlib.Path, *, published: bool = False) -> tuple[bytes, Image.Image]:
    """Reads a picture file whole.

    Args:
        path: a PNG or JPEG file.
        published: the picture belongs to a benchmark that is used with its flaws: any common
            format counts, and the end of a JPEG may be missing.

    Returns:
        The bytes of the file, and the picture, decoded.

    Raises:
        DataError: missing, damaged or empty file, another format, or too many pixels.
    """
    data = _bytes(path)
    try:
        picture = Image.open(
            io.BytesIO(data), formats=_PUBLISHED_FORMATS if published else _FORMATS
        )
        _check_area(picture)
        picture.load()
        found = None if published else damage(data)
    except Exception as error:  # damaged files raise OSError, SyntaxError, ValueError and others
        raise _unreadable(path, error if data else ValueError("empty file")) from error
    if found:
        raise _unreadable(path, ValueError(found))
    return data, picture


def _bytes(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore the file") from error


def _unreadable(path: pathlib.Path, error: Exception) -> DataError:
    reason = str(error).replace(repr(path), "").split("<")[0].strip()
    return DataError(f"{path}: is no readable PNG or JPEG picture ({reason}); replace the file")


def _check_area(picture: Image.Image) -> None:
    # Pillow only warns, and warnings cannot be caught in threads.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and picture.width * picture.height > limit:
        raise ValueError(f"{picture.width} x {picture.height} pixels, more than {limit} in all")


def drop_alpha(path: pathlib.Path, picture: Image.Image) -> Image.Image:
    """The picture without its alpha channel, which must be opaque.

    Raises:
        DataError: pixels are transparent.
    """
    if not picture.has_transparency_data:
        return picture
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    if alpha.min() < 255:
        raise DataError(
            f"{path}: {count_pixels((alpha < 255).sum())} are transparent; save it without alpha "
            "channel"
        )
    return picture.convert("L" if picture.mode == "LA" else "RGB")


def png_depth(data: bytes) -> int:
    """Bits per channel of a PNG, which Pillow hides for RGB; 8 for other files."""
    return data[_PNG_DEPTH_AT] if data.startswith(PNG_MAGIC) else 8


def stretch(data: bytes) -> int:
    """By what Pillow multiplies the numbers of a grey PNG of 2 or 4 bits to fill 8."""
    depth, kind = png_depth(data), data[_PNG_DEPTH_AT + 1]
    return 255 // (2**depth - 1) if depth in (2, 4) and kind == _GREY else 1


def count_pixels(pixels: int) -> str:
    """A number of pixels in words."""
    return f"{pixels} pixel" if pixels == 1 else f"{pixels} pixels"
