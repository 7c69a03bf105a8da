"""Writes pictures and label maps; a file appears complete or not at all."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from flaxseg.errors import DataError
from flaxseg.files import replace_file
from flaxseg.labels import Color


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
