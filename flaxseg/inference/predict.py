"""Label maps for images of any size."""

from collections.abc import Callable

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxseg.errors import ConfigError, DataError
from flaxseg.labels import LabelSet
from flaxseg.models import eval_view
from flaxseg.ops import resize_bilinear
from flaxseg.preprocess import Preprocess

LabelFn = Callable[[nnx.State, nnx.State, jax.Array | np.ndarray], jax.Array]
"""(params, stats, images (B, H, W, 3)) -> label maps (B, H, W) uint8."""


def image_logits(
    model: nnx.Module,
    labels: LabelSet,
    preprocess: Preprocess,
    images: jax.Array | np.ndarray,
    size: tuple[int, int] | None = None,
) -> jax.Array:
    """What the model says about every pixel, in eval mode; to be called inside `jax.jit`.

    Args:
        model: a segmenter of this library, in train or eval mode.
        labels: the classes the model knows.
        preprocess: how its images were normalised.
        images: (B, H, W, 3), 0 to 255.
        size: (H', W') of the result, the size of the images when it is None.

    Returns:
        (B, H', W', K) logits.

    Raises:
        ConfigError: the model has another number of classes than `labels`.
    """
    logits = eval_view(model)(preprocess(jnp.asarray(images))).logits
    if logits.shape[-1] != labels.num_classes:
        raise ConfigError(
            f"the model predicts {logits.shape[-1]} classes, label set {labels.name!r} has "
            f"{labels.num_classes}: give the label set that the model was trained with"
        )
    height, width = size or images.shape[1:3]
    return resize_bilinear(logits, (height, width), align_corners=False)


def make_label_fn(graphdef: nnx.GraphDef, labels: LabelSet, preprocess: Preprocess) -> LabelFn:
    """A compiled (params, stats, images) -> label maps, for weights that change between calls.

    Args:
        graphdef: of `nnx.split(model, nnx.Param, nnx.BatchStat)`, in train or eval mode.
        labels: the classes the model knows.
        preprocess: how its images were normalised.

    Returns:
        A function of the two other parts of the split and of images, (B, H, W, 3) uint8. It
        returns (B, H, W) uint8 and compiles once for each shape of the images.
    """

    @jax.jit
    def label_fn(params: nnx.State, stats: nnx.State, images: jax.Array | np.ndarray) -> jax.Array:
        model = nnx.merge(graphdef, params, stats)
        return image_logits(model, labels, preprocess, images).argmax(axis=-1).astype(jnp.uint8)

    return label_fn


class Predictor:
    """Segments single photos of any size.

    A photo is filled up at its right and bottom edge to a multiple of `multiple` pixels, with the
    colour that normalises to zero, and the result is cut back. Photos of many sizes so share few
    compilations: one for each padded size.

    Attributes:
        label_set: the classes of the label maps.
        multiple: pixels to which height and width are rounded up.
    """

    def __init__(
        self, model: nnx.Module, labels: LabelSet, preprocess: Preprocess, *, multiple: int = 32
    ):
        """Takes the weights of a model as they are now.

        Args:
            model: a segmenter of this library, in train or eval mode.
            labels: the classes the model knows.
            preprocess: how its images were normalised.
            multiple: pixels to which height and width are rounded up. With 1 nothing is padded,
                the result equals the evaluation's, and every size compiles anew.

        Raises:
            ConfigError: `multiple` is not a whole number from 1 on.
        """
        if not isinstance(multiple, int) or multiple < 1:
            raise ConfigError(f"multiple is {multiple!r}, it must be a whole number from 1 on")
        self.label_set = labels
        self.multiple = multiple
        graphdef, self._params, self._stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        self._padding = np.round(255 * np.asarray(preprocess.mean)).astype(np.uint8)
        self._label_fn = make_label_fn(graphdef, labels, preprocess)

        @jax.jit
        def logits_fn(
            params: nnx.State, stats: nnx.State, images: jax.Array | np.ndarray
        ) -> jax.Array:
            return image_logits(nnx.merge(graphdef, params, stats), labels, preprocess, images)

        self._logits_fn = logits_fn

    def logits(self, image: np.ndarray) -> np.ndarray:
        """The logits of an RGB image, (H, W, 3) uint8, as (H, W, K) float32.

        Raises:
            DataError: the image is not (H, W, 3) uint8, or is empty.
        """
        return self._run(self._logits_fn, image)

    def labels(self, image: np.ndarray, *, max_side: int | None = None) -> np.ndarray:
        """The label map of an RGB image.

        Args:
            image: (H, W, 3) uint8.
            max_side: a photo whose longer side has more pixels is segmented at that size, and its
                label map enlarged: for photos that do not fit in memory, or that are far larger
                than those of the training. None segments every photo at its own size.

        Returns:
            (H, W) uint8 class ids.

        Raises:
            DataError: the image is not (H, W, 3) uint8, or is empty.
            ConfigError: `max_side` is less than 1.
        """
        check_image(image)
        if max_side is not None and max_side < 1:
            raise ConfigError(f"max_side is {max_side}, it must be at least 1 pixel")
        height, width = image.shape[:2]
        if max_side is None or max(height, width) <= max_side:
            return self._run(self._label_fn, image)
        scale = max_side / max(height, width)
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        label = self._run(self._label_fn, shrunk)
        return cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)

    def _run(self, function: LabelFn, image: np.ndarray) -> np.ndarray:
        check_image(image)
        height, width = image.shape[:2]
        padded_size = [-(-side // self.multiple) * self.multiple for side in (height, width)]
        padded = np.empty((1, *padded_size, 3), np.uint8)
        padded[:] = self._padding
        padded[0, :height, :width] = image
        result = np.asarray(function(self._params, self._stats, padded))
        return result[0, :height, :width].copy()


def check_image(image: np.ndarray) -> None:
    """Raises a `DataError` unless the image is (H, W, 3) uint8 and not empty."""
    shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        raise DataError(
            f"an image must be (H, W, 3) uint8 RGB, found {shape} {dtype}: "
            "flaxseg.inference.read_image reads files into that form"
        )
