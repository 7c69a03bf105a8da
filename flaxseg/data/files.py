"""Reads image and label files, and refuses by name what would be read wrong.

Pillow does the reading here because it reports a damaged file; OpenCV returns what it has.
"""

import io
import pathlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from flaxseg.data.integrity import PNG_MAGIC, damage
from flaxseg.errors import DataError

if TYPE_CHECKING:
    from flaxseg.data.pairs import Coding

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Endings of the files that count as pictures, in lower case."""

_FORMATS = ("PNG", "JPEG")
# Published JPEG files turn out to be GIFs, bitmaps and others.
_PUBLISHED_FORMATS = (*_FORMATS, "GIF", "BMP", "TIFF", "WEBP")
_JPEGS = ("JPEG", "MPO")  # MPO is a JPEG with further ones behind it
_PNG_DEPTH_AT = 24  # bits per channel: the ninth byte of the IHDR chunk's data; then its colours
_GREY = 0
_ID_MODES = {"L", "P", "I", "I;16", "I;16B", "I;16L"}
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright


def read_pair(
    image_path: pathlib.Path,
    label_path: pathlib.Path,
    coding: "Coding",
    *,
    published: bool = False,
    recode: bool = False,
) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Reads an image and its label map.

    Where an EXIF orientation turns a picture, the size of the label map tells whether its ids
    belong to the picture as it is stored or as it is shown.

    Args:
        image_path: a PNG or JPEG file.
        label_path: a PNG file.
        coding: how the label file becomes class ids.
        published: takes the picture as it is stored, as `read_training_image`.
        recode: as `read_training_image`.

    Returns:
        The bytes of a PNG or JPEG file of the picture, the picture, (H, W, 3) uint8, and the class
        ids, (H, W) uint8.

    Raises:
        DataError: a file that cannot be read, or files that do not fit.
    """
    data, image = read_training_image(image_path, published=published, recode=recode)
    label = coding.read(label_path)
    orientation = 1 if published else _orientation(image_path)
    if orientation > 1:
        data, image = _placed(image_path, orientation, data, image, label)
    check_size(image_path, image, label_path, label)
    return data, image, label


def read_training_image(
    path: pathlib.Path, *, published: bool = False, recode: bool = False
) -> tuple[bytes, np.ndarray]:
    """Reads a picture as 8-bit RGB, as it is stored.

    Grey, palette and CMYK pictures become RGB, an opaque alpha channel is dropped, and the EXIF
    orientation is not applied.

    Args:
        path: a PNG or JPEG file.
        published: the picture belongs to a benchmark that is used with its flaws: any common
            format counts, alpha is dropped and the end of a JPEG may be missing.
        recode: returns the bytes of a PNG file in any case.

    Returns:
        The bytes of a PNG or JPEG file that holds just the RGB picture (those of `path`, where
        they do), and the picture, (H, W, 3) uint8.

    Raises:
        DataError: missing or damaged file, 16 bits per channel, or transparent pixels.
    """
    data, picture = _open(path, published=published)
    if _png_depth(data) == 16 or picture.mode.startswith(("I", "F")):
        raise DataError(f"{path}: has 16 or more bits per channel; save it with 8")
    plain = picture.mode == "RGB" and "transparency" not in picture.info
    if plain and picture.format in ("PNG", *_JPEGS) and not recode:
        return data, np.asarray(picture)
    if not published:
        picture = _drop_alpha(path, picture)
    rgb = picture.convert("RGB")
    return _png(rgb), np.asarray(rgb)


def read_mask(path: pathlib.Path, *, palette_colors: bool = False) -> np.ndarray:
    """Reads a label map as it is stored.

    Args:
        path: a PNG file. JPEG is refused: its compression changes the values.
        palette_colors: a palette file counts as RGB; otherwise its indices count.

    Returns:
        The values of a single-channel file, or the indices of a palette file, (H, W) integer; the
        colours of an RGB file, (H, W, 3) uint8.

    Raises:
        DataError: missing or damaged file, JPEG, or a pixel format that holds no classes.
    """
    data, picture = _open(path)
    if picture.format in _JPEGS:
        raise DataError(f"{path}: is a JPEG, whose compression changes class ids; save it as PNG")
    if picture.mode == "P" and palette_colors:
        return np.asarray(_drop_alpha(path, picture).convert("RGB"))
    if picture.mode == "1":
        return np.asarray(picture).astype(np.uint8)
    if picture.mode in _ID_MODES:
        return np.asarray(picture) // _stretch(data)
    if picture.mode in ("LA", "RGB", "RGBA") and _png_depth(data) != 16:
        return np.asarray(_drop_alpha(path, picture))
    raise DataError(
        f"{path}: pixel format {picture.mode} holds no class ids; save it as an 8-bit PNG"
    )


def is_rgb_mask(path: pathlib.Path) -> bool:
    """Whether a label file holds colours rather than numbers or indices; reads its header alone.

    Raises:
        DataError: it is no readable picture.
    """
    try:
        with Image.open(io.BytesIO(_bytes(path)), formats=_FORMATS) as picture:
            return picture.mode in ("RGB", "RGBA")
    except DataError:
        raise
    except Exception as error:  # as in _open: it depends on what is damaged
        raise _unreadable(path, error) from error


def check_size(image_path: pathlib.Path, image: np.ndarray, label_path: pathlib.Path, label):
    """Raises `DataError` unless an image (H, W, 3) and its label map (H, W) have one size."""
    if image.shape[:2] != label.shape[:2]:
        raise DataError(
            f"{label_path}: is {_size(label)}, but its image {image_path} is {_size(image)} "
            "(width x height); save both at one size"
        )


def count_pixels(pixels: int) -> str:
    """A number of pixels in words."""
    return f"{pixels} pixel" if pixels == 1 else f"{pixels} pixels"


def _open(path: pathlib.Path, *, published: bool = False) -> tuple[bytes, Image.Image]:
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


def _orientation(path: pathlib.Path) -> int:
    """How a picture is to be turned or mirrored to be shown, 1 to 8; 1 is not at all."""
    with Image.open(path) as picture:
        value = picture.getexif().get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def _placed(
    path: pathlib.Path, orientation: int, data: bytes, image: np.ndarray, label: np.ndarray
) -> tuple[bytes, np.ndarray]:
    """The picture, turned if that is how its label map fits, with its bytes."""
    stored = Image.fromarray(image)
    stored.getexif()[_ORIENTATION] = orientation
    shown = ImageOps.exif_transpose(stored)
    fits_stored = image.shape[:2] == label.shape
    if fits_stored and (shown.height, shown.width) == label.shape:
        raise DataError(
            f"{path}: its EXIF orientation {orientation} turns or mirrors it, and its label map "
            "fits either way; save it as it is shown, without the orientation"
        )
    if fits_stored:
        return data, image
    return _png(shown), np.asarray(shown)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _drop_alpha(path: pathlib.Path, picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    if alpha.min() < 255:
        raise DataError(
            f"{path}: {count_pixels((alpha < 255).sum())} are transparent; save it without alpha "
            "channel"
        )
    return picture.convert("L" if picture.mode == "LA" else "RGB")


def _png_depth(data: bytes) -> int:
    """Bits per channel of a PNG, which Pillow hides for RGB; 8 for other files."""
    return data[_PNG_DEPTH_AT] if data.startswith(PNG_MAGIC) else 8


def _stretch(data: bytes) -> int:
    """By what Pillow multiplies the numbers of a grey PNG of 2 or 4 bits to fill 8."""
    depth, kind = _png_depth(data), data[_PNG_DEPTH_AT + 1]
    return 255 // (2**depth - 1) if depth in (2, 4) and kind == _GREY else 1


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
