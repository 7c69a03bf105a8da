"""Reads images with their label maps, and refuses by name what would be read wrong."""

import pathlib

import numpy as np
from PIL import Image, ImageOps

from flaxseg.data.pairs import Coding
from flaxseg.errors import DataError
from flaxseg.pictures.open import JPEGS, drop_alpha, open_picture, png_depth, stretch
from flaxseg.pictures.photos import encode_png, read_training_image

_ID_MODES = {"L", "P", "I", "I;16", "I;16B", "I;16L"}
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright


def read_pair(
    image_path: pathlib.Path,
    label_path: pathlib.Path,
    coding: Coding,
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
    data, picture = open_picture(path)
    if picture.format in JPEGS:
        raise DataError(f"{path}: is a JPEG, whose compression changes class ids; save it as PNG")
    if picture.mode == "P" and palette_colors:
        return np.asarray(drop_alpha(path, picture).convert("RGB"))
    if picture.mode == "1":
        return np.asarray(picture).astype(np.uint8)
    if picture.mode in _ID_MODES:
        return np.asarray(picture) // stretch(data)
    if picture.mode in ("LA", "RGB", "RGBA") and png_depth(data) != 16:
        return np.asarray(drop_alpha(path, picture))
    raise DataError(
        f"{path}: pixel format {picture.mode} holds no class ids; save it as an 8-bit PNG"
    )


def is_rgb_mask(path: pathlib.Path) -> bool:
    """Whether a label file holds colours rather than numbers or indices.

    Raises:
        DataError: it is no readable picture.
    """
    return open_picture(path)[1].mode in ("RGB", "RGBA")


def check_size(image_path: pathlib.Path, image: np.ndarray, label_path: pathlib.Path, label):
    """Raises `DataError` unless an image (H, W, 3) and its label map (H, W) have one size."""
    if image.shape[:2] != label.shape[:2]:
        raise DataError(
            f"{label_path}: is {_size(label)}, but its image {image_path} is {_size(image)} "
            "(width x height); save both at one size"
        )


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
    return encode_png(shown), np.asarray(shown)


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
