"""Label maps for images of any size."""

import functools
from collections.abc import Callable

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxseg.data.transforms.geometry import MODES, Interpolation
from flaxseg.errors import ConfigError, DataError
from flaxseg.inference.canvas import USUAL_SIDE, Canvases, CanvasFn, fits_canvas
from flaxseg.inference.logits import LogitsFn, make_logits_fn
from flaxseg.inference.pixels import (
    Detail,
    Pixels,
    Planes,
    label_and_confidence,
    planes_of,
    read_planes,
    split,
)
from flaxseg.inference.windows import Size, Windows
from flaxseg.labels import LabelSet
from flaxseg.models import Model
from flaxseg.preprocess import Preprocess

_MULTIPLE = 32

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

    run = make_logits_fn(
        graphdef,
        labels,
        preprocess,
        lambda classes: classes.astype(jnp.uint8),
        windows=windows,
        by_pixel=True,
        of_labels=True,
    )

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

    Photos of many sizes share few compilations. A photo lies in the corner of a canvas, one of few
    sizes, and the network is told how far it reaches: the result is that of the evaluation at the
    photo's own size, but for rounding. Networks that cannot be told, and all if `multiple` is
    given, see photos filled up at the right and bottom edge to a multiple of so many pixels, with
    the colour that normalises to zero, and the result is cut back. So do those that can be told
    with photos too small for them.

    Attributes:
        label_set: the classes of the label maps.
        multiple: pixels to which height and width are rounded up; None on canvases.
    """

    def __init__(
        self,
        model: Model,
        labels: LabelSet,
        preprocess: Preprocess,
        *,
        multiple: int | None = None,
        windows: Windows | None = None,
        canvases: Canvases | None = None,
        temperature: float | None = None,
    ):
        """Takes the weights of a model as they are now.

        Args:
            model: a segmenter of this library, in train or eval mode.
            labels: the classes the model knows.
            preprocess: how its images were normalised.
            multiple: pixels to which height and width are rounded up. With 1 nothing is padded,
                and every size compiles anew. None: canvases, or 32 where the network cannot take
                them. Without effect with windows, and for a network that takes one size only:
                photos are stretched to that.
            windows: where the network looks at a photo; None looks at it as a whole.
            canvases: sizes for which the network is compiled; a photo that fits on none of them
                compiles a program of its own. None: four, for sides of up to 2048 pixels.
            temperature: what the logits are divided by before they become probabilities, see
                `flaxseg.inference.calibration`. None: 1.

        Raises:
            ConfigError: `multiple` is not a whole number from 1 on.
        """
        if multiple is not None and (not isinstance(multiple, int) or multiple < 1):
            raise ConfigError(f"multiple is {multiple!r}, it must be a whole number from 1 on")
        self.label_set = labels
        self._config = model.config
        self._whole = windows is None
        # Windows are stretched one by one, and are of one size without any padding.
        self._fixed_size = None if windows else model.config.fixed_size
        whole = not windows and not self._fixed_size
        placed = whole and multiple is None and model.config.takes_canvas
        self.multiple = None if placed else (multiple or _MULTIPLE) if whole else 1
        self._canvases = (canvases or Canvases.within(USUAL_SIDE)) if placed else Canvases(())
        self._on_canvas = CanvasFn(model, labels, preprocess) if placed else None
        graphdef, self._params, self._stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        self._padding = np.round(255 * np.asarray(preprocess.mean)).astype(np.uint8)
        self._label_fn = make_label_fn(graphdef, labels, preprocess, windows=windows)
        make = functools.partial(make_logits_fn, graphdef, labels, preprocess, windows=windows)
        temperature = 1.0 if temperature is None else temperature
        self._read_planes = functools.partial(read_planes, temperature=temperature)
        sure = functools.partial(label_and_confidence, temperature=temperature)
        self._confidence_fn = _at_own_size(make(sure, by_pixel=True))
        self._logits_fn = _at_own_size(make(lambda logits: logits))

    def logits(self, image: np.ndarray) -> np.ndarray:
        """The logits of an RGB image, (H, W, 3) uint8, as (H, W, K) float32.

        Raises:
            DataError: the image is not (H, W, 3) uint8, or is empty.
        """
        check_image(image)
        planes = self._planes(image)
        if planes is None:
            return self._start(self._logits_fn, image)().copy()
        return np.stack([*planes()], -1)

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
        start = self.start(image, size=size, max_side=max_side, interpolation=interpolation)
        return start().label

    def start(
        self,
        image: np.ndarray,
        *,
        size: tuple[int, int] | None = None,
        max_side: int | None = None,
        interpolation: Interpolation = "bilinear",
        out_size: tuple[int, int] | None = None,
        detail: Detail = "label",
    ) -> Callable[[], Pixels]:
        """Starts the network on an RGB image; the function that it returns waits for the result.

        That function may be called in another thread, while this one starts the next image.

        Labels and confidence of a photo on a canvas need a few maps of its size besides; elsewhere
        also those of its logits that the network's program or a strip of windows holds. All logits
        are held for probabilities, and for another size than that which the network sees.

        Args:
            image: as for `labels`, and so are `size`, `max_side` and `interpolation`.
            size: height and width to which the photo is stretched first.
            max_side: longest side that is not shrunk.
            interpolation: of a photo that is stretched to `size`.
            out_size: height and width of the result, to which the logits are interpolated from
                those at which the photo is segmented. None: the photo's own.
            detail: what is read off besides the label map: its "confidence", or that and the
                "probabilities" of all classes.

        Raises:
            DataError: the image is not (H, W, 3) uint8, or is empty.
            ConfigError: `size` or `max_side` is less than 1.
        """
        check_image(image)
        own = (image.shape[0], image.shape[1])
        inner, out = self.inner_size(own, size, max_side), out_size or own
        if inner != own:
            # The stretch is that of training and evaluation; mere shrinking had better not alias.
            how = MODES[interpolation] if self._fixed_size or size else cv2.INTER_AREA
            image = cv2.resize(image, inner[::-1], interpolation=how)
        more = () if inner == out else (out,)
        planes = self._planes(image, *more)
        if planes is not None:
            return functools.partial(self._read_planes, planes, out, detail)
        if more or detail == "probabilities":
            logits = self._start(self._logits_fn, image)
            return lambda: self._read_planes(lambda: planes_of(logits(), out), out, detail)
        if detail == "confidence":
            pairs = self._start(self._confidence_fn, image)
            return lambda: split(pairs())
        label = self._start(self._label_fn, image)
        return lambda: Pixels(label().copy())

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

    def _planes(self, image: np.ndarray, *more: Size) -> Planes | None:
        """The logits of each class at every pixel, if there is a canvas for the photo."""
        own = (image.shape[0], image.shape[1])
        size = self._canvases.holding(own) if fits_canvas(self._config, own) else None
        if self._on_canvas is None or size is None:
            return None
        return self._on_canvas(image, size, *more)

    def _start(self, function: LabelFn, image: np.ndarray) -> Callable[[], np.ndarray]:
        """What a function makes of a photo filled up to a multiple, cut back to the photo."""
        height, width = image.shape[:2]
        multiple = self.multiple or (1 if fits_canvas(self._config, (height, width)) else _MULTIPLE)
        padded_size = [-(-side // multiple) * multiple for side in (height, width)]
        padded = np.empty((1, *padded_size, 3), np.uint8)
        padded[:] = self._padding
        padded[0, :height, :width] = image
        result = function(self._params, self._stats, padded)
        return lambda: np.asarray(result)[0, :height, :width]


def _at_own_size(function: LogitsFn) -> LabelFn:
    return lambda params, stats, images: function(params, stats, images, images.shape[1:3])


def check_image(image: np.ndarray) -> None:
    """Raises a `DataError` unless the image is (H, W, 3) uint8 and not empty."""
    shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        raise DataError(
            f"an image must be (H, W, 3) uint8 RGB, found {shape} {dtype}: "
            "flaxseg.inference.read_image reads files into that form"
        )
