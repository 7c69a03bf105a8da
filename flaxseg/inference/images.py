"""Photos in, pictures and label maps out; a file appears complete or not at all."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flaxseg.errors import DataError
from flaxseg.files import replace_file
from flaxseg.labels import Color

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


def write_image(path: str | os.PathLike[str], picture: np.ndarray) -> None:
    """Writes an RGB picture, (H, W, 3) uint8, as PNG.

    Raises:
        DataError: the file cannot be written; what was there before is unharmed.
    """
    _write_png(Path(path), Image.fromarray(np.ascontiguousarray(picture)))


def write_mask(path: str | os.PathLike[str], label: np.ndarray, palette: Sequence[Color]) -> None:
    """Writes a label map as palette PNG: viewers show colours, `numpy.asarray` gives the ids.

    Args:
        path: file to write.
        label: (H, W) uint8 class ids.
        palette: one RGB colour per class; the other ids are shown black.

    Raises:
        DataError: the file cannot be written; what was there before is unharmed.
    """
    image = Image.fromarray(np.ascontiguousarray(label, np.uint8))
    image.putpalette(_full_palette(palette))
    _write_png(Path(path), image)


def _full_palette(palette: Sequence[Color]) -> bytes:
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(palette)] = palette
    return colors.tobytes()


def _write_png(path: Path, image: Image.Image) -> None:
    try:
        with replace_file(path) as partial, partial.open("wb") as file:
            image.save(file, "PNG")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
