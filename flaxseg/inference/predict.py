"""Label maps for images of any size."""

from collections.abc import Callable

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from flaxseg.errors import ConfigError, DataError
from flaxseg.labels import LabelSet
from flaxseg.models import Config, Model, eval_view
from flaxseg.ops import resize_bilinear
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import replicated, whole

LabelFn = Callable[[nnx.State, nnx.State, jax.Array | np.ndarray], jax.Array]
"""(params, stats, images (B, H, W, 3)) -> label maps (B, H, W) uint8."""


def image_logits(
    model: Model,
    labels: LabelSet,
    preprocess: Preprocess,
    images: jax.Array | np.ndarray,
    size: tuple[int, int] | None = None,
) -> jax.Array:
    """What the model says about every pixel, in eval mode; to be called inside `jax.jit`.

    Images of a size that the model does not take are stretched to one that it does.

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
    images = jnp.asarray(images)
    fitting = fitting_size(model.config, (images.shape[1], images.shape[2]))
    inputs = resize_bilinear(preprocess(images), fitting)
    logits = eval_view(model)(inputs).logits
    if logits.shape[-1] != labels.num_classes:
        raise ConfigError(
            f"the model predicts {logits.shape[-1]} classes, label set {labels.name!r} has "
            f"{labels.num_classes}: give the label set that the model was trained with"
        )
    height, width = size or images.shape[1:3]
    return resize_bilinear(logits, (height, width), align_corners=False)


def fitting_size(config: Config, size: tuple[int, int]) -> tuple[int, int]:
    """The height and width nearest above `size` that a network takes, or the only one."""
    if config.fixed_size is not None:
        return config.fixed_size
    divisor = config.size_divisor
    return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


def make_label_fn(
    graphdef: nnx.GraphDef, labels: LabelSet, preprocess: Preprocess, mesh: Mesh | None = None
) -> LabelFn:
    """A compiled (params, stats, images) -> label maps, for weights that change between calls.

    Args:
        graphdef: of `nnx.split(model, nnx.Param, nnx.BatchStat)`, in train or eval mode.
        labels: the classes the model knows.
        preprocess: how its images were normalised.
        mesh: devices on which the weights lie, whole or split, and of which each computes the same;
            None runs where the weights are.

    Returns:
        A function of the two other parts of the split and of images, (B, H, W, 3) uint8. It
        returns (B, H, W) uint8 and compiles once for each shape of the images.
    """

    def label_fn(params: nnx.State, stats: nnx.State, images: jax.Array | np.ndarray) -> jax.Array:
        model = nnx.merge(graphdef, *whole((params, stats), mesh))
        return image_logits(model, labels, preprocess, images).argmax(axis=-1).astype(jnp.uint8)

    return jax.jit(label_fn, out_shardings=None if mesh is None else replicated(mesh))


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
        self, model: Model, labels: LabelSet, preprocess: Preprocess, *, multiple: int = 32
    ):
        """Takes the weights of a model as they are now.

        Args:
            model: a segmenter of this library, in train or eval mode.
            labels: the classes the model knows.
            preprocess: how its images were normalised.
            multiple: pixels to which height and width are rounded up. With 1 nothing is padded,
                the result equals the evaluation's, and every size compiles anew. Without effect
                for a network that takes one size only: photos are stretched to that.

        Raises:
            ConfigError: `multiple` is not a whole number from 1 on.
        """
        if not isinstance(multiple, int) or multiple < 1:
            raise ConfigError(f"multiple is {multiple!r}, it must be a whole number from 1 on")
        self.label_set = labels
        self._fixed_size = model.config.fixed_size
        self.multiple = multiple if self._fixed_size is None else 1
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

    def labels(
        self,
        image: np.ndarray,
        *,
        size: tuple[int, int] | None = None,
        max_side: int | None = None,
    ) -> np.ndarray:
        """The label map of an RGB image.

        A photo that is segmented at another size than its own gets the class with the highest
        logit interpolated at each of its own pixels.

        Args:
            image: (H, W, 3) uint8.
            size: height and width to which the photo is stretched first, for networks that know
                pictures of that size alone.
            max_side: without `size`, a photo whose longer side has more pixels is shrunk to that:
                for photos that do not fit in memory, or that are far larger than those of the
                training. None segments it at its own size.

        Returns:
            (H, W) uint8 class ids.

        Raises:
            DataError: the image is not (H, W, 3) uint8, or is empty.
            ConfigError: `size` or `max_side` is less than 1.
        """
        check_image(image)
        own = (image.shape[0], image.shape[1])
        size = self._fixed_size or size
        inner = inner_size(own, size, max_side)
        if inner == own:
            return self._run(self._label_fn, image)
        # The stretch is that of training and evaluation; mere shrinking had better not alias.
        how = cv2.INTER_AREA if size is None else cv2.INTER_LINEAR
        resized = cv2.resize(image, inner[::-1], interpolation=how)
        return _resized_argmax(self.logits(resized), own)

    def _run(self, function: LabelFn, image: np.ndarray) -> np.ndarray:
        check_image(image)
        height, width = image.shape[:2]
        padded_size = [-(-side // self.multiple) * self.multiple for side in (height, width)]
        padded = np.empty((1, *padded_size, 3), np.uint8)
        padded[:] = self._padding
        padded[0, :height, :width] = image
        result = np.asarray(function(self._params, self._stats, padded))
        return result[0, :height, :width].copy()


def inner_size(
    own: tuple[int, int], size: tuple[int, int] | None, max_side: int | None
) -> tuple[int, int]:
    """Height and width at which `Predictor.labels` segments a photo of a size.

    Raises:
        ConfigError: `size` or `max_side` is less than 1.
    """
    if size is not None and min(size) < 1:
        raise ConfigError(f"size is {size[0]} {size[1]}, it must be at least 1 pixel each")
    if max_side is not None and max_side < 1:
        raise ConfigError(f"max_side is {max_side}, it must be at least 1 pixel")
    if size is not None:
        return size
    scale = 1.0 if max_side is None else min(1.0, max_side / max(own))
    return max(1, round(own[0] * scale)), max(1, round(own[1] * scale))


def _resized_argmax(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Class of the highest interpolated logit, (H, W, K) -> (H', W') uint8.

    One class after the other: all at once would fill the memory for a large photo.
    """
    label = np.zeros(size, np.uint8)
    highest = np.full(size, -np.inf, np.float32)
    for index in range(logits.shape[-1]):
        plane = np.ascontiguousarray(logits[..., index])
        plane = cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR)
        label[plane > highest] = index
        np.maximum(highest, plane, out=highest)
    return label


def check_image(image: np.ndarray) -> None:
    """Raises a `DataError` unless the image is (H, W, 3) uint8 and not empty."""
    shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        raise DataError(
            f"an image must be (H, W, 3) uint8 RGB, found {shape} {dtype}: "
            "flaxseg.inference.read_image reads files into that form"
        )
