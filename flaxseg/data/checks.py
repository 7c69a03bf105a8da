"""Looks at every label before the first step, and reports all that is wrong in one error."""

import dataclasses

import numpy as np

from flaxseg.data.problems import gather
from flaxseg.data.source import Source
from flaxseg.data.statistics import Statistics
from flaxseg.errors import DataError
from flaxseg.labels import IGNORE
from flaxseg.pictures.open import count_pixels

_NAMED = 5  # values in a message


@dataclasses.dataclass(frozen=True)
class LabelReport:
    """What the labels of a source hold.

    Attributes:
        num_images: number of examples.
        pixels: number of pixels of every class, (K,) int64.
        ignored: number of pixels labelled 255.
        image_pixels: number of labelled pixels of the images in which a class occurs, (K,) int64.
    """

    num_images: int
    pixels: np.ndarray
    ignored: int
    image_pixels: np.ndarray


def check_labels(source: Source, *, num_threads: int = 4) -> LabelReport:
    """Reads every example and checks its label map, unless that was done to prepare the source.

    Args:
        source: the examples.
        num_threads: number of examples read at a time.

    Returns:
        The class frequencies.

    Raises:
        DataError: as `count_labels`.
    """
    counted = count_labels(source, num_threads=num_threads)
    return LabelReport(len(source), counted.pixels, counted.ignored, counted.image_pixels)


def count_labels(source: Source, *, num_threads: int = 4, most: int | None = None) -> Statistics:
    """Counts the pixels of every example by class, unless that was done to prepare the source.

    Args:
        source: the examples.
        num_threads: number of examples read at a time.
        most: number of examples that are read at most, spread over the source; None reads all.

    Raises:
        DataError: label maps are unreadable, of another size than their image, not class ids, or
            hold an id out of range. One error names the first few files, what was found, the
            allowed range, and the number of files.
    """
    known = getattr(source, "statistics", None)
    if known is not None:
        return known
    count = len(source) if most is None else min(most, len(source))
    chosen = np.linspace(0, len(source) - 1, count).astype(int).tolist()
    counted = gather(lambda index: _count_ids(source, index), chosen, "examples", num_threads)
    sizes, counts = zip(*counted, strict=True)
    return Statistics(np.array(sizes), np.array(counts), source.labels.num_classes)


def _count_ids(source: Source, index: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Size, and number of pixels of every label value, (256,)."""
    name = source.name(index)
    image, label = source[index]
    num_classes = source.labels.num_classes
    allowed = f"0 to {num_classes - 1}, and {IGNORE} for unlabelled pixels"
    if label.ndim != 2:
        raise DataError(
            f"{name}: the label map has shape {label.shape}, an RGB mask?, but class ids of shape "
            f"(height, width) are expected: {allowed}"
        )
    if image.shape[:2] != label.shape:
        raise DataError(
            f"{name}: the label map has shape {label.shape}, but the image {image.shape[:2]}; "
            "save both at one size"
        )
    wrong = (label < 0) | (label >= num_classes) & (label != IGNORE)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        values = np.unique(label[wrong]).tolist()
        found = ", ".join(map(str, values[:_NAMED])) + ", ..." * (len(values) > _NAMED)
        raise DataError(
            f"{name}: class id {found} in {count_pixels(wrong.sum())} (first at row {row}, column "
            f"{column}); allowed are {allowed}"
        )
    return label.shape, np.bincount(label.ravel(), minlength=256)
