"""Reads image and label files, and refuses by name what would be read wrong.

Pillow does the reading here because it reports a damaged file; OpenCV returns what it has.
"""

import dataclasses
import io
import pathlib
import warnings
from collections.abc import Mapping

import numpy as np
from PIL import Image

from flaxseg.errors import DataError
from flaxseg.labels import IGNORE, Color

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Endings of the files that count as pictures, in lower case."""

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_AT = 24  # bits per channel: the ninth byte of the IHDR chunk's data
_ID_MODES = {"L", "P", "I", "I;16", "I;16B", "I;16L"}


def read_training_image(path: pathlib.Path) -> tuple[bytes, np.ndarray]:
    """Reads a picture as 8-bit RGB.

    Grey and palette pictures become RGB, an opaque alpha channel is dropped, and the EXIF
    orientation is not applied, so that the pixels stay where the label map has them.

    Args:
        path: a PNG or JPEG file.

    Returns:
        The bytes of a PNG or JPEG file that holds just the RGB picture (those of `path`, where
        they do), and the picture, (H, W, 3) uint8.

    Raises:
        DataError: missing or damaged file, 16 bits per channel, or transparent pixels.
    """
    data, picture = _open(path)
    if _png_depth(data) == 16 or picture.mode.startswith(("I", "F")):
        raise DataError(f"{path}: has 16 or more bits per channel; save it with 8")
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return data, np.asarray(picture)
    rgb = _drop_alpha(path, picture).convert("RGB")
    buffer = io.BytesIO()
    rgb.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), np.asarray(rgb)


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
    if picture.format == "JPEG":
        raise DataError(f"{path}: is a JPEG, whose compression changes class ids; save it as PNG")
    if picture.mode == "P" and palette_colors:
        return np.asarray(picture.convert("RGB"))
    if picture.mode == "1":
        return np.asarray(picture).astype(np.uint8)
    if picture.mode in _ID_MODES:
        return np.asarray(picture)
    if picture.mode in ("LA", "RGB", "RGBA") and _png_depth(data) != 16:
        return np.asarray(_drop_alpha(path, picture))
    raise DataError(
        f"{path}: pixel format {picture.mode} holds no class ids; save it as an 8-bit PNG"
    )


def check_size(image_path: pathlib.Path, image: np.ndarray, label_path: pathlib.Path, label):
    """Raises `DataError` unless an image (H, W, 3) and its label map (H, W) have one size."""
    if image.shape[:2] != label.shape[:2]:
        raise DataError(
            f"{label_path}: is {_size(label)}, but its image {image_path} is {_size(image)} "
            "(width x height); save both at one size"
        )


@dataclasses.dataclass(frozen=True)
class IndexCoding:
    """Label maps that hold class ids.

    Attributes:
        num_classes: ids 0 to num_classes - 1 are classes.
        unlabelled: other values that are allowed and become 255.
        first_channel: RGB files are accepted where the red channel alone tells the id: all
            channels equal, or green and blue zero.
    """

    num_classes: int
    unlabelled: tuple[int, ...] = (IGNORE,)
    first_channel: bool = False

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        extra = " or ".join(str(value) for value in self.unlabelled)
        return f"0 to {self.num_classes - 1}, and {extra} for unlabelled pixels"

    def read(self, path: pathlib.Path) -> np.ndarray:
        """The class ids of a file, (H, W) uint8; `DataError` if it holds something else."""
        mask = read_mask(path)
        if mask.ndim == 3:
            mask = self._red_channel(path, mask)
        outside = (mask < 0) | (mask >= self.num_classes)
        ignored = np.isin(mask, self.unlabelled)
        if np.any(outside & ~ignored):
            raise DataError(bad_ids(str(path), mask, outside & ~ignored, self.allowed))
        return np.where(ignored, IGNORE, mask).astype(np.uint8)

    def _red_channel(self, path: pathlib.Path, mask: np.ndarray) -> np.ndarray:
        red, rest = mask[..., :1], mask[..., 1:]
        if self.first_channel and (np.all(rest == red) or not rest.any()):
            return red[..., 0]
        odd = np.argmax((rest != red).any(axis=-1))
        row, column = np.unravel_index(odd, mask.shape[:2])
        raise DataError(
            f"{path}: is an RGB mask (colour {_color(mask[row, column])} at row {row}, column "
            f"{column}), but class ids are expected: {self.allowed}; save the ids as an 8-bit "
            "single-channel PNG"
        )


class ColorCoding:
    """Label maps that hold one colour per class."""

    def __init__(self, ids: Mapping[Color, int], source: str):
        """Takes the colours.

        Args:
            ids: class id of every colour.
            source: where the colours come from, for messages.
        """
        self._source = source
        keys = np.array([_pack(np.array(color)) for color in ids])
        order = np.argsort(keys)
        self._keys = keys[order]
        self._ids = np.array(list(ids.values()), np.uint8)[order]

    def read(self, path: pathlib.Path) -> np.ndarray:
        """The class ids of a file, (H, W) uint8; `DataError` if it holds something else."""
        mask = read_mask(path, palette_colors=True)
        if mask.ndim == 2:
            raise DataError(
                f"{path}: has a single channel (values {mask.min()} to {mask.max()}), but an RGB "
                f"mask in the {len(self._keys)} colours of {self._source} is expected"
            )
        packed = _pack(mask)
        place = np.minimum(np.searchsorted(self._keys, packed), len(self._keys) - 1)
        unknown = self._keys[place] != packed
        if unknown.any():
            row, column = np.argwhere(unknown)[0]
            raise DataError(
                f"{path}: colour {_color(mask[row, column])} at row {row}, column {column} "
                f"({_count(unknown.sum())} of unknown colour) is none of the {len(self._keys)} "
                f"colours of {self._source}; mend the mask or add the colour there"
            )
        return self._ids[place]


def bad_ids(name: str, label: np.ndarray, wrong: np.ndarray, allowed: str) -> str:
    """The message about ids out of range.

    Args:
        name: the file.
        label: class ids, (H, W).
        wrong: where they are out of range, (H, W) bool, true at least once.
        allowed: the allowed range in words.
    """
    row, column = np.argwhere(wrong)[0]
    values = np.unique(label[wrong])
    found = ", ".join(str(value) for value in values[:5]) + (", ..." if len(values) > 5 else "")
    return (
        f"{name}: class id {found} in {_count(wrong.sum())} (first at row {row}, column {column}); "
        f"allowed are {allowed}"
    )


def _open(path: pathlib.Path) -> tuple[bytes, Image.Image]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore the file") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
            picture.load()
    except Exception as error:  # damaged files raise OSError, SyntaxError, ValueError and others
        reason = "empty file" if not data else str(error).replace(repr(path), "").split("<")[0]
        raise DataError(
            f"{path}: is no readable PNG or JPEG picture ({reason.strip()}); replace the file"
        ) from error
    return data, picture


def _drop_alpha(path: pathlib.Path, picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    if alpha.min() < 255:
        raise DataError(
            f"{path}: {_count((alpha < 255).sum())} are transparent; save it without alpha channel"
        )
    return picture.convert("L" if picture.mode == "LA" else "RGB")


def _png_depth(data: bytes) -> int:
    """Bits per channel of a PNG, which Pillow hides for RGB; 8 for other files."""
    return data[_PNG_DEPTH_AT] if data.startswith(_PNG_MAGIC) else 8


def _pack(colors: np.ndarray) -> np.ndarray:
    """One number per colour, (..., 3) to (...)."""
    wide = colors.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def _color(values: np.ndarray) -> str:
    return "(" + ", ".join(str(value) for value in values) + ")"


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"


def _count(pixels: int) -> str:
    return f"{pixels} pixel" if pixels == 1 else f"{pixels} pixels"
