"""Pictures inside a page: small ones, as data URIs."""

import base64
import io
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from flaxseg.inference.metrics import Scores
from flaxseg.labels import IGNORE, LabelSet
from flaxseg.pictures.overlay import colorize, stretched
from flaxseg.report.confusion import draw_confusion

WRONG, UNLABELLED = (214, 40, 40), (40, 40, 40)
"""Colours of an error map; right pixels show a pale photo."""

_QUALITY = 80


def photo_uri(image: np.ndarray, side: int) -> str:
    """A photo (H, W, 3) uint8 as JPEG, its longer side shrunk to at most so many pixels."""
    buffer = io.BytesIO()
    Image.fromarray(_shrunk(image, side, cv2.INTER_AREA)).save(buffer, "JPEG", quality=_QUALITY)
    return _uri("image/jpeg", buffer.getvalue())


def labels_uri(label: np.ndarray, labels: LabelSet, side: int) -> str:
    """A label map (H, W) in the colours of its classes as PNG, shrunk likewise."""
    picture = colorize(_shrunk(label, side, cv2.INTER_NEAREST), labels.palette)
    buffer = io.BytesIO()
    Image.fromarray(picture).quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG")
    return _uri("image/png", buffer.getvalue())


def errors_uri(image: np.ndarray, label: np.ndarray, prediction: np.ndarray, side: int) -> str:
    """Wrong pixels over a pale photo, shrunk likewise; a few of many tint a pixel a little.

    Args:
        image: (H', W', 3) uint8.
        label: true class ids, (H, W) uint8.
        prediction: predicted ones, (H, W) uint8.
        side: pixels of the longer side.
    """
    ignored = label == IGNORE
    shares = np.stack([(label != prediction) & ~ignored, ignored], -1).astype(np.float32)
    wrong, unlabelled = np.moveaxis(_shrunk(shares, side, cv2.INTER_AREA), -1, 0)[..., None]
    photo = cv2.resize(
        stretched(image, label.shape), wrong.shape[1::-1], None, 0, 0, cv2.INTER_AREA
    )
    pale = 150 + 0.4 * photo.mean(-1, keepdims=True)
    blend = pale * (1 - wrong - unlabelled) + wrong * WRONG + unlabelled * UNLABELLED
    buffer = io.BytesIO()
    picture = Image.fromarray(blend.round().clip(0, 255).astype(np.uint8))
    picture.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return _uri("image/jpeg", buffer.getvalue())


def confusion_uri(scores: Scores, labels: LabelSet, title: str) -> str:
    """The picture that a training run draws as confusion.png."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "confusion.png"
        draw_confusion(scores, labels.classes, path, title)
        return _uri("image/png", path.read_bytes())


def file_uri(path: Path) -> str:
    """A PNG as it is.

    Raises:
        OSError: it cannot be read.
    """
    return _uri("image/png", path.read_bytes())


def sheet_uri(path: Path, side: int) -> str:
    """A picture of photos as JPEG, its longer side shrunk to at most so many pixels.

    Raises:
        OSError: it cannot be read.
    """
    with Image.open(path) as picture:
        sheet = _shrunk(np.asarray(picture.convert("RGB")), side, cv2.INTER_AREA)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return _uri("image/jpeg", buffer.getvalue())


def _shrunk(picture: np.ndarray, side: int, interpolation: int) -> np.ndarray:
    height, width = picture.shape[:2]
    factor = min(1.0, side / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(picture, size, interpolation=interpolation) if factor < 1 else picture


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
