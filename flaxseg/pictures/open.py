"""Opens picture files, and refuses by name what is damaged.

Pillow does the reading here because it reports a damaged file; OpenCV returns what it has.
"""

import contextlib
import io
import os
import pathlib
import threading
from collections.abc import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from flaxseg.errors import ConfigError, DataError
from flaxseg.pictures.integrity import PNG_MAGIC, damage
from flaxseg.pictures.tiff import Bands, bands_of

PHOTO_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".mpo",
    ".tif",
    ".tiff",
    ".bmp",
    ".webp",
    ".gif",
)
"""Endings of the files that count as pictures, in lower case."""

MAX_PIXELS = 200_000_000
"""Pixels of the largest picture that is read unless more are asked for: more than any camera has,
and less than what fills a computer's memory."""

JPEGS = ("JPEG", "MPO")  # MPO is a JPEG with further ones behind it
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")
_PNG_DEPTH_AT = 24  # bits per channel: the ninth byte of the IHDR chunk's data


def is_photo_name(path: str | os.PathLike[str]) -> bool:
    """Whether a file counts as a picture by the ending of its name."""
    return pathlib.PurePath(path).suffix.lower() in PHOTO_SUFFIXES


def check_max_pixels(max_pixels: int) -> None:
    """Raises `ConfigError` unless it is a number of pixels, or None for no limit."""
    if max_pixels < 0:
        raise ConfigError(f"max_pixels is {max_pixels}, it must be at least 1, or 0: no limit")


def open_picture(
    path: str | os.PathLike[str], *, published: bool = False, max_pixels: int = MAX_PIXELS
) -> tuple[bytes, Image.Image]:
    """Reads a picture file whole.

    Args:
        path: a PNG, JPEG, TIFF, BMP, WebP or GIF file, whatever its name.
        published: the picture belongs to a benchmark that is used with its flaws: checksums are
            not compared, and the end mark of a JPEG may be missing.
        max_pixels: the largest area that is read; 0 has no limit.

    Returns:
        The bytes of the file, and its first picture, decoded.

    Raises:
        DataError: missing, damaged or empty file, another format, or too many pixels.
        ConfigError: `max_pixels` is less than 0.
    """
    data = read_bytes(path)
    with explained(path):
        picture = open_header(data, path, max_pixels)
        decode(data, picture, published=published)
    return data, picture


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file; `DataError` if it cannot be read, or there is none."""
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct the name") from error
    if not data:
        raise _unreadable(path, "empty file")
    return data


@contextlib.contextmanager
def explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns whatever a decoder raises into the one `DataError` about unreadable pictures."""
    try:
        yield
    except (DataError, ConfigError):
        raise
    except UnidentifiedImageError as error:
        reason = "no PNG, JPEG, TIFF, BMP, WebP or GIF file of a kind that is read"
        raise _unreadable(path, reason) from error
    except MemoryError as error:
        raise DataError(f"{path}: does not fit in memory; make it smaller") from error
    except Exception as error:  # damaged files raise OSError, SyntaxError, ValueError and others
        raise _unreadable(path, str(error).strip() or type(error).__name__) from error


def open_header(
    data: bytes, path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """A picture whose pixels are not decoded yet; to be called inside `explained`.

    Raises:
        DataError: it has more than `max_pixels` pixels, or bands that are not read.
        ConfigError: `max_pixels` is less than 0.
    """
    check_max_pixels(max_pixels)
    bands = bands_of(data)
    if bands is not None and bands.unread:
        raise _unread(path, bands)
    try:
        with _PILLOWS_LIMIT_LIFTED:
            picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        if bands is None or (bands.count == 1 and not bands.kind):
            raise
        raise _unread(path, bands) from None
    area = picture.width * picture.height
    if max_pixels and area > max_pixels:
        raise DataError(
            f"{path}: has {picture.width} x {picture.height} = {area} pixels, more than the limit "
            f"of {max_pixels}; give --max-pixels {area} if there is memory for them"
        )
    return picture


def decode(data: bytes, picture: Image.Image, *, published: bool = False) -> None:
    """Decodes what `open_header` opened; raises whatever tells that the bytes are damaged."""
    limit = Image.MAX_IMAGE_PIXELS
    large = limit is not None and picture.width * picture.height > limit
    with _PILLOWS_LIMIT_LIFTED if large else contextlib.nullcontext():
        picture.load()
    found = None if published else damage(data)
    if found:
        raise ValueError(found)


class _PillowsLimitLifted:
    """A block in which Pillow neither warns of large pictures nor refuses them.

    Its limit is a variable of the process and is not ours to change: it comes back when the last
    thread has left. A filter of warnings would not do, as those are shared by all threads, too.
    """

    def __init__(self):
        self._lock, self._inside = threading.Lock(), 0
        self._usual: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS = self._usual


_PILLOWS_LIMIT_LIFTED = _PillowsLimitLifted()


def _unreadable(path: str | os.PathLike[str], reason: str) -> DataError:
    return DataError(f"{path}: is no readable picture ({reason}); replace the file")


def _unread(path: str | os.PathLike[str], bands: Bands) -> DataError:
    return DataError(
        f"{path}: has {bands}, which are not read; save one band, or red, green and blue, with 8 "
        "bits each"
    )


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


def count_pixels(pixels: int) -> str:
    """A number of pixels in words."""
    return f"{pixels} pixel" if pixels == 1 else f"{pixels} pixels"
