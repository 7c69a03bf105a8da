"""Writes pictures and label maps; a file appears complete or not at all."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from flaxseg.errors import DataError
from flaxseg.files import replace_file
from flaxseg.labels import IGNORE, Color
from flaxseg.pictures.coordinates import Coordinates


def write_image(
    path: str | os.PathLike[str], picture: np.ndarray, at: Coordinates | None = None
) -> None:
    """Writes a picture as PNG, and where it has coordinates as GeoTIFF, too.

    Args:
        path: file to write; the GeoTIFF stands beside it, see `beside`.
        picture: RGB, (H, W, 3) uint8, or grey, (H, W) uint8.
        at: where it lies.

    Raises:
        DataError: a file cannot be written; what was there before is unharmed.
    """
    _write(Path(path), Image.fromarray(np.ascontiguousarray(picture)), at)


def write_mask(
    path: str | os.PathLike[str],
    label: np.ndarray,
    palette: Sequence[Color],
    at: Coordinates | None = None,
) -> None:
    """Writes a label map as palette PNG: viewers show colours, `numpy.asarray` gives the ids.

    Args:
        path: file to write.
        label: (H, W) uint8 class ids.
        palette: one RGB colour per class; the other ids are shown black.
        at: where it lies, for a GeoTIFF beside the file, in which `IGNORE` stands for nothing.

    Raises:
        DataError: a file cannot be written; what was there before is unharmed.
    """
    image = Image.fromarray(np.ascontiguousarray(label, np.uint8))
    image.putpalette(_full_palette(palette))
    _write(Path(path), image, at, no_data=str(IGNORE))


def beside(path: Path) -> Path:
    """The GeoTIFF that stands beside a PNG: that cannot hold coordinates."""
    return path.with_suffix(".tif")


def _full_palette(palette: Sequence[Color]) -> bytes:
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(palette)] = palette
    return colors.tobytes()


def _write(path: Path, image: Image.Image, at: Coordinates | None, no_data: str = "") -> None:
    with written(path) as file:
        image.save(file, "PNG")
    if at is not None:
        with written(beside(path)) as file:
            tags = at.tags(no_data)
            image.save(file, "TIFF", compression="tiff_adobe_deflate", tiffinfo=tags)


@contextlib.contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` when the context ends.

    Raises:
        DataError: the file cannot be written; what was there before is unharmed.
    """
    try:
        with replace_file(path) as partial, partial.open("wb") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
