"""Label maps as pictures: colours, and overlays over photos."""

from collections.abc import Sequence

import cv2
import numpy as np

from flaxseg.errors import ConfigError, DataError
from flaxseg.labels import IGNORE, Color, LabelSet

IGNORED_COLOR = (0, 0, 0)


def colorize(label: np.ndarray, palette: Sequence[Color]) -> np.ndarray:
    """Paints every pixel in the colour of its class, ignored ones black.

    Args:
        label: (H, W) class ids, `IGNORE` where unknown.
        palette: one RGB colour per class, 0 to 255.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: the label map is not (H, W) whole numbers, or an id has no colour.
    """
    ids = checked_label(label, len(palette))
    table = np.full((IGNORE + 1, 3), IGNORED_COLOR, np.uint8)
    table[: len(palette)] = palette
    return table[ids]


def overlay(
    image: np.ndarray, label: np.ndarray, labels: LabelSet, alpha: float = 0.5
) -> np.ndarray:
    """Blends the colours of the classes into a photo; ignored pixels keep the photo.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) class ids, `IGNORE` where unknown.
        labels: colours of the classes.
        alpha: share of the colour, 0 (the photo alone) to 1 (the colour alone).

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: photo and label map differ in size, or an id is no class.
        ConfigError: `alpha` is outside 0 to 1.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha is {alpha}, it must be from 0 to 1")
    check_pair(image, label)
    colors = colorize(label, labels.palette)
    blend = cv2.addWeighted(image, 1 - alpha, colors, alpha, 0)
    return np.where((label == IGNORE)[..., None], image, blend)


def stretched(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (H, W, 3) uint8 at another height and width, such as those of its label map."""
    return image if image.shape[:2] == size else cv2.resize(image, size[::-1])


def checked_label(label: np.ndarray, num_classes: int) -> np.ndarray:
    """A label map, (H, W) whole numbers; `DataError` if it is none or an id is no class."""
    label = np.asarray(label)
    if label.ndim != 2 or label.dtype.kind not in "iu":
        raise DataError(f"a label map is (H, W) whole numbers, found {label.shape} {label.dtype}")
    wrong = ((label < 0) | (label >= num_classes)) & (label != IGNORE)
    if wrong.any():
        raise DataError(
            f"label {label[wrong][0]} is outside 0 to {num_classes - 1} and is not {IGNORE} "
            "(ignored)"
        )
    return label


def check_pair(image: np.ndarray, label: np.ndarray) -> None:
    """Raises `DataError` unless a photo (H, W, 3) and a label map (H, W) have one size."""
    if np.ndim(image) != 3 or np.shape(image)[:2] != np.shape(label):
        raise DataError(
            f"photo {np.shape(image)} and label map {np.shape(label)} do not fit: they must be "
            "(H, W, 3) and (H, W)"
        )
