"""What is written of a segmented photo: one function for each kind of file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import cv2
import numpy as np

from flaxseg.errors import ConfigError, DataError, did_you_mean
from flaxseg.inference.pixels import Detail, Pixels, grey
from flaxseg.inference.rle import regions
from flaxseg.labels import IGNORE, LabelSet
from flaxseg.pictures.coordinates import Coordinates
from flaxseg.pictures.kinds import Kind
from flaxseg.pictures.legend import with_legend
from flaxseg.pictures.overlay import colorize, overlay
from flaxseg.pictures.write import write_image, write_mask, written


class Segmented(NamedTuple):
    """A photo and what is known of its pixels.

    Attributes:
        photo: (H, W, 3) uint8, in any size.
        pixels: label map, in which pixels may be `IGNORE`, confidence and probabilities.
        labels: the classes.
        alpha: share of their colours in the overlay, 0 to 1.
        at: where the photo lies on a map.
    """

    photo: np.ndarray
    pixels: Pixels
    labels: LabelSet
    alpha: float
    at: Coordinates | None = None

    @property
    def written_at(self) -> Coordinates | None:
        """Where the label map lies, which may be of another size."""
        height, width = self.pixels.label.shape
        return self.at and self.at.resized(self.photo.shape[:2], (height, width))


class Output(NamedTuple):
    """A kind of file that there is one of for each photo.

    Attributes:
        ending: of its name, after `NAME_`.
        detail: what must be known of the pixels.
        write: writes it.
        placed: where the photo has coordinates, a GeoTIFF of the same pixels stands beside it.
    """

    ending: str
    detail: Detail
    write: Callable[[Path, Segmented], None]
    placed: bool = False


def _mask(file: Path, given: Segmented) -> None:
    write_mask(file, given.pixels.label, given.labels.palette, given.written_at)


def _color(file: Path, given: Segmented) -> None:
    write_image(file, colorize(given.pixels.label, given.labels.palette), given.written_at)


def _overlay(file: Path, given: Segmented) -> None:
    label = given.pixels.label
    write_image(file, with_legend(blended(given), label, given.labels))


def blended(given: Segmented) -> np.ndarray:
    """The photo, in the size of the label map, with the colours of the classes over it."""
    label = given.pixels.label
    height, width = label.shape
    photo = given.photo
    if photo.shape[:2] != label.shape:
        smaller = height * width < photo.shape[0] * photo.shape[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        photo = cv2.resize(photo, (width, height), interpolation=how)
    return overlay(photo, label, given.labels, given.alpha)


def _confidence(file: Path, given: Segmented) -> None:
    assert given.pixels.confidence is not None
    write_image(file, grey(given.pixels.confidence), given.written_at)


def _probabilities(file: Path, given: Segmented) -> None:
    assert given.pixels.probabilities is not None
    with written(file) as stream:
        # Not compressed: that would take longer than the network.
        np.savez(
            stream,
            probabilities=given.pixels.probabilities,
            classes=np.array(given.labels.classes),
        )


OUTPUTS: dict[str, Output] = {
    "mask": Output("mask.png", "label", _mask, placed=True),
    "color": Output("color.png", "label", _color, placed=True),
    "overlay": Output("overlay.png", "label", _overlay),
    "confidence": Output("confidence.png", "confidence", _confidence, placed=True),
    "probabilities": Output("probabilities.npz", "probabilities", _probabilities),
}
"""Those of which each photo gets a file; "coco" is one file for all."""

_DETAILS: tuple[Detail, ...] = get_args(Detail)


def check_kinds(kinds: Sequence[str]) -> list[str]:
    """The kinds that are asked for, each once, the mask first.

    Raises:
        ConfigError: there is no such kind.
    """
    known = get_args(Kind)
    for kind in kinds:
        if kind not in known:
            raise ConfigError(f"--write {kind}: no such output{did_you_mean(kind, known)}")
    return [kind for kind in known if kind in kinds]


def needed_detail(kinds: Sequence[str], min_confidence: float) -> Detail:
    """What must be known of the pixels to write these kinds and to leave out unsure pixels."""
    details: list[Detail] = [OUTPUTS[kind].detail for kind in kinds if kind in OUTPUTS]
    details.append("confidence" if min_confidence else "label")
    return max(details, key=_DETAILS.index)


def without_unsure(pixels: Pixels, min_confidence: float) -> Pixels:
    """The pixels whose highest probability is lower become `IGNORE`."""
    if pixels.confidence is None or not min_confidence:
        return pixels
    unsure = ~(pixels.confidence >= min_confidence)  # so that what is not a number is unsure, too
    return pixels._replace(label=np.where(unsure, np.uint8(IGNORE), pixels.label))


def make_folder(folder: Path) -> None:
    """Makes a folder for outputs if it does not exist.

    Raises:
        DataError: it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"the output folder {folder} is a file: choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the output folder {folder} cannot be made: {error.strerror}") from error


def facts_of(given: Segmented, kinds: Sequence[str]) -> dict[str, Any]:
    """What the files about all photos tell of this one, as plain JSON values."""
    label, confidence = given.pixels.label, given.pixels.confidence
    counts = np.bincount(label.ravel(), minlength=IGNORE + 1)
    mean = None if confidence is None else float(confidence.mean(dtype=np.float64))
    return {
        "photo": list(given.photo.shape[:2]),
        "mask": list(label.shape),
        "counts": counts[: given.labels.num_classes].tolist(),
        "unsure": int(counts[IGNORE]),
        "confidence": mean,
        "regions": [region.annotation(label.shape) for region in regions(label)]
        if "coco" in kinds
        else None,
    }
