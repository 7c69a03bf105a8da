"""Label maps for images of any size."""

from collections.abc import Callable

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxseg.data.transforms.geometry import MODES, Interpolation
from flaxseg.errors import ConfigError, DataError
from flaxseg.inference.logits import make_logits_fn
from flaxseg.inference.windows import Windows
from flaxseg.labels import LabelSet
from flaxseg.models import Model
from flaxseg.preprocess import Preprocess

LabelFn = Callable[..., jax.Array]
"""(params, stats, images (B, H, W, 3), size=None) -> label maps (B, H, W) uint8."""


def make_label_fn(
    graphdef: nnx.GraphDef,
    labels: LabelSet,
    preprocess: Preprocess,
    windows: Windows | None = None,
) -> LabelFn:
    """A compiled (params, stats, images) -> label maps, for weights that change between calls.

    Args:
        graphdef: of `nnx.split(model, nnx.Param, nnx.BatchStat)`, in train or eval mode.
        labels: the classes the model knows.
        preprocess: how its images were normalised.
        windows: where the network looks at a picture; None looks at it as a whole.

    Returns:
        A function of the two other parts of the split, of images (B, H, W, 3) uint8, and of the
        size (H', W') of the maps, which is that of the images when it is None. It returns
        (B, H', W') uint8 and compiles once for each shape of the images or windows.
    """

    def classes(logits: jax.Array) -> jax.Array:
        return logits.argmax(axis=-1).astype(jnp.uint8)

    run = make_logits_fn(graphdef, labels, preprocess, classes, windows=windows, by_pixel=True)

    def label_fn(
        params: nnx.State,
        stats: nnx.State,
        images: jax.Array | np.ndarray,
        size: tuple[int, int] | None = None,
    ) -> jax.Array:
        return jnp.asarray(run(params, stats, images, size or images.shape[1:3]))

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
        self,
        model: Model,
        labels: LabelSet,
        preprocess: Preprocess,
        *,
        multiple: int = 32,
        windows: Windows | None = None,
    ):
        """Takes the weights of a model as they are now.

        Args:
            model: a segmenter of this library, in train or eval mode.
            labels: the classes the model knows.
            preprocess: how its images were normalised.
            multiple: pixels to which height and width are rounded up. With 1 nothing is padded,
                the result equals the evaluation's, and every size compiles anew. Without effect
                with windows, and for a network that takes one size only: photos are stretched to
                that.
            windows: where the network looks at a photo; None looks at it as a whole.

        Raises:
            ConfigError: `multiple` is not a whole number from 1 on.
        """
        if not isinstance(multiple, int) or multiple < 1:
            raise ConfigError(f"multiple is {multiple!r}, it must be a whole number from 1 on")
        self.label_set = labels
        self._whole = windows is None
        # Windows are stretched one by one, and are of one size without any padding.
        self._fixed_size = None if windows else model.config.fixed_size
        self.multiple = 1 if windows or self._fixed_size else multiple
        graphdef, self._params, self._stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        self._padding = np.round(255 * np.asarray(preprocess.mean)).astype(np.uint8)
        self._label_fn = make_label_fn(graphdef, labels, preprocess, windows=windows)
        logits_fn = make_logits_fn(graphdef, labels, preprocess, lambda x: x, windows=windows)
        self._logits_fn = lambda p, s, images: logits_fn(p, s, images, images.shape[1:3])

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
        interpolation: Interpolation = "bilinear",
    ) -> np.ndarray:
        """The label map of an RGB image.

        A photo that is segmented at another size than its own gets the class with the highest
        logit interpolated at each of its own pixels.

        Args:
            image: (H, W, 3) uint8.
            size: height and width to which the photo is stretched first, for networks that know
                pictures of that size alone.
            max_side: without `size` and windows, a photo whose longer side has more pixels is
                shrunk to that: for photos that do not fit in memory, or that are far larger than
                those of the training. None segments it at its own size.
            interpolation: of a photo that is stretched to `size`.

        Returns:
            (H, W) uint8 class ids.

        Raises:
            DataError: the image is not (H, W, 3) uint8, or is empty.
            ConfigError: `size` or `max_side` is less than 1.
        """
        check_image(image)
        own = (image.shape[0], image.shape[1])
        inner = self.inner_size(own, size, max_side)
        if inner == own:
            return self._run(self._label_fn, image)
        # The stretch is that of training and evaluation; mere shrinking had better not alias.
        how = MODES[interpolation] if self._fixed_size or size else cv2.INTER_AREA
        resized = cv2.resize(image, inner[::-1], interpolation=how)
        return _resized_argmax(self.logits(resized), own)

    def inner_size(
        self, own: tuple[int, int], size: tuple[int, int] | None, max_side: int | None
    ) -> tuple[int, int]:
        """Height and width at which `labels` segments a photo whose own are these.

        Raises:
            ConfigError: `size` or `max_side` is less than 1.
        """
        if size is not None and min(size) < 1:
            raise ConfigError(f"size is {size[0]} {size[1]}, it must be at least 1 pixel each")
        if max_side is not None and max_side < 1:
            raise ConfigError(f"max_side is {max_side}, it must be at least 1 pixel")
        size = self._fixed_size or size
        if size is not None:
            return size
        limit = max_side if self._whole and max_side is not None else max(own)
        scale = min(1.0, limit / max(own))
        return max(1, round(own[0] * scale)), max(1, round(own[1] * scale))

    def _run(self, function: LabelFn, image: np.ndarray) -> np.ndarray:
        check_image(image)
        height, width = image.shape[:2]
        padded_size = [-(-side // self.multiple) * self.multiple for side in (height, width)]
        padded = np.empty((1, *padded_size, 3), np.uint8)
        padded[:] = self._padding
        padded[0, :height, :width] = image
        result = np.asarray(function(self._params, self._stats, padded))
        return result[0, :height, :width].copy()


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
