"""Whether an exported program says what the model says, on pictures."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from flax import nnx

from flaxseg import models
from flaxseg.data.shapes import Shapes
from flaxseg.errors import CheckpointError
from flaxseg.inference.inputs import find_inputs
from flaxseg.native import LoadedModel
from flaxseg.ops import resize_bilinear
from flaxseg.pictures.photos import read_photo

LABELS_EQUAL = 0.9999
"""Share of the pixels that must have the same class."""

LOGITS_APART = 1e-4
"""Largest difference of two logits, as a part of the largest logit."""

BATCH = 2
"""Pictures of a call."""

SIZES = ((128, 192), (224, 160))
"""Heights and widths at which a program that takes any is compared: lying and upright, for a wrong
interpolation may be right for one of them."""

MOST_PHOTOS = 8
_DRAWN = 3
_SMALLEST_SCENE = 16


class Agreement(NamedTuple):
    """How far an exported program and the model agree.

    Attributes:
        pictures: how many both have seen.
        labels: share of the pixels that have the same class, 0 to 1.
        logits: the largest difference of two logits as a part of the largest logit; None of a
            program that gives labels alone.
    """

    pictures: int
    labels: float
    logits: float | None

    @property
    def suffices(self) -> bool:
        """Whether the program may be kept."""
        close = self.logits is None or self.logits <= LOGITS_APART  # False of NaN
        return close and self.labels >= LABELS_EQUAL

    def __str__(self) -> str:
        apart = "" if self.logits is None else f", logits within {self.logits:.1e} of the largest"
        return f"labels equal in {_percent(self.labels)} of the pixels{apart}"


def checked_sizes(
    config: models.Config, size: tuple[int, int] | None
) -> tuple[tuple[int, int], ...]:
    """The sizes at which a program is compared.

    Args:
        config: of the network.
        size: the only one that the program takes; None: it takes any.
    """
    if size is not None:
        return (size,)
    return tuple((width, width) for _, width in SIZES) if config.square else SIZES


def check_pictures(size: tuple[int, int], folder: str | os.PathLike | None) -> list[np.ndarray]:
    """Pictures to compare on, (H, W, 3) uint8 each.

    Args:
        size: their height and width in pixels; photos are stretched to it.
        folder: of photos, of which the first eight are taken. None: one picture of noise and three
            of drawn shapes, always the same.

    Raises:
        DataError: the folder holds no photo, or one that cannot be read.
    """
    if folder is not None:
        photos = find_inputs([folder], Path(os.devnull)).photos[:MOST_PHOTOS]
        return [cv2.resize(read_photo(photo.path), size[::-1]) for photo in photos]
    height, width = size
    scenes = Shapes(image_size=(max(height, _SMALLEST_SCENE), max(width, _SMALLEST_SCENE)))
    drawn = [scenes[index].image[:height, :width] for index in range(_DRAWN)]
    return [np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8), *drawn]


def compare(
    program: Callable[[np.ndarray], Any],
    loaded: LoadedModel,
    pictures: Sequence[Sequence[np.ndarray]],
    *,
    normalised: bool,
    logits: bool,
) -> Agreement:
    """Runs both on the same pictures.

    Args:
        program: from a batch of pictures to what the exported program says.
        loaded: the model, as its directory has it.
        pictures: (H, W, 3) uint8, one or more of one size in each part.
        normalised: the program takes normalised pictures, float32, in place of bytes.
        logits: it gives logits (B, H, W, K), not labels (B, H, W).
    """
    graphdef, state = nnx.split(models.eval_view(loaded.model))

    @jax.jit
    def model(state: nnx.State, x: jax.Array) -> jax.Array:
        said = nnx.merge(graphdef, state)(x).logits
        return said if logits else resize_bilinear(said, (x.shape[1], x.shape[2]))

    equal, apart, largest = [], [0.0], [0.0]
    for images in (batch for part in pictures for batch in _batches(part)):
        inputs = np.asarray(loaded.preprocess(images))  # pyright: ignore[reportArgumentType]
        expected = np.asarray(model(state, inputs))
        found = np.asarray(program(inputs if normalised else images))
        if logits:
            apart.append(np.max(np.abs(found - expected)))
            largest.append(np.max(np.abs(expected)))
            found = found.argmax(-1)
        equal.append(np.mean(found == expected.argmax(-1)))
    far = float(np.max(apart) / np.max(largest)) if logits else None
    return Agreement(sum(map(len, pictures)), float(np.mean(equal)), far)


def _batches(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """All of one shape, so that each side compiles once; the last is filled up with the first."""
    even = [*pictures, *pictures[: -len(pictures) % BATCH]]
    return [np.stack(even[start : start + BATCH]) for start in range(0, len(even), BATCH)]


def require(agreement: Agreement, what: str) -> None:
    """Raises a `CheckpointError` unless the program may be kept.

    Args:
        agreement: of the program with the model.
        what: file that is not written in this case.
    """
    if not agreement.suffices:
        raise CheckpointError(
            f"{what} is not written, for the exported program and the model differ: {agreement}; "
            f"expected {_percent(LABELS_EQUAL)} and {LOGITS_APART:.0e}: the weights are damaged, "
            "or this is a bug to report"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.6g} %"
