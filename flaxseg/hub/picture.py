"""The picture of a card: what the network finds in one, small enough for a page."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from flaxseg.data.shapes import LABELS, draw_scene
from flaxseg.inference.predicting import predict_files
from flaxseg.labels import LabelSet
from flaxseg.pictures.legend import with_legend
from flaxseg.pictures.overlay import overlay
from flaxseg.pictures.photos import read_photo
from flaxseg.pictures.write import write_image, written

SIDE = 640
"""Pixels of the longer side, without the legend; small photos are enlarged."""

_DRAWN = (96, 160)  # the shorter side is that of the scenes that networks are trained on
_SEED = 7


def knows_shapes(labels: LabelSet) -> bool:
    """Whether a network tells the drawn shapes apart, so that a drawn picture suits it."""
    return labels.classes == LABELS.classes


def write_picture(
    file: Path,
    model: Path,
    labels: LabelSet,
    photo: Path | None,
    view: Mapping[str, Any],
) -> None:
    """Draws the classes over a photo as `flaxseg predict` finds them, with a legend below.

    Args:
        file: PNG file to write.
        model: a model directory.
        labels: its classes.
        photo: what to segment; None draws shapes.
        view: further arguments of `flaxseg.inference.predict_files`.

    Raises:
        DataError: the photo cannot be read, or the file not be written.
    """
    image = _scene() if photo is None else read_photo(photo)
    with tempfile.TemporaryDirectory() as folder:
        write_image(Path(folder) / "photo.png", image)
        photos, out = [Path(folder) / "photo.png"], Path(folder) / "out"
        with Image.open(predict_files(model, photos, out, write=("mask",), **view)[0]) as mask:
            label = np.asarray(mask)
    factor = SIDE / max(label.shape)
    size = max(1, round(factor * label.shape[1])), max(1, round(factor * label.shape[0]))
    image = cv2.resize(image, size, None, 0, 0, cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    label = cv2.resize(label, size, None, 0, 0, cv2.INTER_NEAREST)
    picture = with_legend(overlay(image, label, labels), label, labels)
    with written(file) as opened:  # 256 colours make a third of the bytes
        Image.fromarray(picture).quantize(256).save(opened, "PNG", optimize=True)


def _scene() -> np.ndarray:
    return draw_scene(np.random.default_rng(_SEED), _DRAWN).image
