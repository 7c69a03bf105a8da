"""Reads photos."""

import io
import os
import pathlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flaxseg.errors import DataError
from flaxseg.pictures.open import JPEGS, drop_alpha, open_picture, png_depth

_EIGHT_BIT_MODES = {"1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"}
_ALPHA_MODES = {"LA", "PA", "La", "RGBA", "RGBa"}
_SIXTEEN_BIT_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a photo the way a viewer shows it.

    Turned as its EXIF data say, transparent pixels on white, grey, palette and CMYK pictures as
    RGB, 16 bits as 8, the first picture of an animation.

    Args:
        path: a file in any format that Pillow reads, such as JPEG, PNG, TIFF, WebP or BMP.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the file is missing, a folder, unreadable, damaged or no picture, or its pixels
            are of a kind that has no agreed brightness, such as floats.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            image.load()
            return np.asarray(_as_rgb(ImageOps.exif_transpose(image), path))
    except FileNotFoundError:
        raise DataError(f"image {path} does not exist") from None
    except IsADirectoryError:
        raise DataError(f"image {path} is a folder: name the files in it") from None
    except UnidentifiedImageError:
        raise DataError(f"{path} is not an image that can be read (JPEG, PNG, TIFF, …)") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"image {path} is too large: {error}") from error
    except DataError:
        raise
    # Damaged files raise OSError, SyntaxError, ValueError, struct.error and others.
    except Exception as error:
        raise DataError(f"image {path} cannot be read, it may be damaged: {error}") from error


def _as_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode in _SIXTEEN_BIT_MODES:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, image).convert("RGB")
    if image.mode in _EIGHT_BIT_MODES:
        return image.convert("RGB")
    raise DataError(
        f"image {path} has pixels of the kind {image.mode!r}, which have no agreed brightness: "
        "save it as 8-bit RGB"
    )


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
    data, picture = open_picture(path, published=published)
    if png_depth(data) == 16 or picture.mode.startswith(("I", "F")):
        raise DataError(f"{path}: has 16 or more bits per channel; save it with 8")
    plain = picture.mode == "RGB" and "transparency" not in picture.info
    if plain and picture.format in ("PNG", *JPEGS) and not recode:
        return data, np.asarray(picture)
    if not published:
        picture = drop_alpha(path, picture)
    rgb = picture.convert("RGB")
    return encode_png(rgb), np.asarray(rgb)


def encode_png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
