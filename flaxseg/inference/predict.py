"""Label maps for images of any size."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from flaxseg.data.transforms.geometry import MODES, Interpolation
from flaxseg.errors import ConfigError, DataError
from flaxseg.inference.canvas import USUAL_SIDE, Canvases, fits_canvas, round_up
from flaxseg.inference.logits import make_logits_fn
from flaxseg.inference.look import Batches, ModelLook, Place, start_look
from flaxseg.inference.pixels import (
    Detail,
    Pixels,
    Planes,
    planes_of,
    read_planes,
    read_probabilities,
)
from flaxseg.inference.through import Through
from flaxseg.inference.views import (
    PLAIN,
    Views,
    mean_probabilities,
    mirrored_back,
    scaled,
    summed_probabilities,
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


SeenSize = Size | Callable[[float], Size]
"""Height and width to which a photo is stretched first, or a function of the scale to them."""


class Prepared(NamedTuple):
    """A photo as a network is to see it.

    Attributes:
        pictures: (h, w, 3) uint8, one for each scale.
        places: where each lies; photos of the same places go to the network together.
        out: height and width of the result.
    """

    pictures: tuple[np.ndarray, ...]
    places: tuple[Place, ...]
    out: Size


class Predictor:
    """Segments photos of any size, alone or in batches.

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
        temperature: float | None = None,
        *,
        multiple: int | None = None,
        windows: Windows | None = None,
        canvases: Canvases | None = None,
        views: Views = PLAIN,
        batch_size: int | None = 1,
        photos: int | None = None,
        mesh: Mesh | None = None,
    ):
        """Takes the weights of a model as they are now.

        Args:
            model: a segmenter of this library, in train or eval mode.
            labels: the classes the model knows.
            preprocess: how its images were normalised.
            temperature: what the logits are divided by before they become probabilities, see
                `flaxseg.inference.calibration`. None: 1.
            multiple: pixels to which height and width are rounded up. With 1 nothing is padded,
                and every size compiles anew. None: canvases, or 32 where the network cannot take
                them. Without effect with windows, and for a network that takes one size only:
                photos are stretched to that.
            windows: where the network looks at a photo; None looks at it as a whole.
            canvases: sizes for which the network is compiled; a photo that fits on none of them
                compiles a program of its own. None: four, for sides of up to 2048 pixels. Each
                scale of `views` multiplies them.
            views: scales at which the network looks at a photo, and whether mirrored, too: their
                probabilities are averaged.
            batch_size: photos, or windows, that the network sees at a time; fewer are filled up
                with blank ones. None: see `flaxseg.inference.look.Batches`.
            photos: how many there will be: batches of photos are no larger. None: many.
            mesh: devices of this process, over which batches are split; None runs on one.

        Raises:
            ConfigError: `multiple` or `batch_size` is not a whole number from 1 on, or the network
                takes one size only and there are scales without windows.
        """
        for name, value in (("multiple", multiple), ("batch_size", batch_size)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name} is {value!r}, it must be a whole number from 1 on")
        self.label_set = labels
        self._config, self._views = model.config, views
        self._batches = Batches(batch_size, 1 if mesh is None else mesh.size, photos)
        # Windows are stretched one by one, and are of one size without any padding.
        self._fixed_size = None if windows else model.config.fixed_size
        if self._fixed_size and views.scales != PLAIN.scales:
            height, width = self._fixed_size
            raise ConfigError(
                f"--scales is given, and the network takes {height} x {width} pixels alone: leave "
                "it out, or give --window too"
            )
        whole = not windows and not self._fixed_size
        placed = whole and multiple is None and model.config.takes_canvas
        self.multiple = None if placed else (multiple or _MULTIPLE) if whole else 1
        canvases = (canvases or Canvases.within(USUAL_SIDE)) if placed else Canvases(())
        self._canvases = canvases.times(views.scales)
        self._look = ModelLook(model, labels, preprocess, mesh)
        many = self._batches._replace(pictures=None)
        self._temperature = 1.0 if temperature is None else temperature
        self._through = windows and Through(self._look, windows, many.room, self._temperature)
        self._padding = np.round(255 * np.asarray(preprocess.mean)).astype(np.uint8)

    def logits(self, image: np.ndarray) -> np.ndarray:
        """The logits of an RGB image, (H, W, 3) uint8, as (H, W, K) float32.

        Of one look at it as it is, whatever the `views`.

        Raises:
            DataError: the image is not (H, W, 3) uint8, or is empty.
        """
        check_image(image)
        own = (image.shape[0], image.shape[1])
        photo = Prepared((image,), (self._place(own),), own)
        if self._through is not None:
            return next(self._through.logits([image]))
        (planes,) = self._started([photo], 0, False, self.room(photo))
        return np.stack([*planes()], -1)

    def probabilities(
        self, image: np.ndarray, *, size: SeenSize | None = None, max_side: int | None = None
    ) -> np.ndarray:
        """The probabilities of all classes, (H, W, K) float32 or wider, as means over the `views`.

        Args:
            image: (H, W, 3) uint8; of the others see `start`.
            size: height and width to which the photo is stretched first.
            max_side: longest side that is not shrunk.

        Raises:
            DataError: the image is not (H, W, 3) uint8, or is empty.
            ConfigError: `size` or `max_side` is less than 1.
        """
        photo = self.prepare(image, size=size, max_side=max_side)
        (planes,) = self._probabilities([photo])
        return np.stack([*planes()], -1)

    def labels(
        self,
        image: np.ndarray,
        *,
        size: SeenSize | None = None,
        max_side: int | None = None,
        interpolation: Interpolation = "bilinear",
    ) -> np.ndarray:
        """The label map of an RGB image.

        A photo that is segmented at another size than its own gets the class with the highest
        logit interpolated at each of its own pixels, or with the highest mean probability where
        there are several `views`.

        Args:
            image: (H, W, 3) uint8.
            size: height and width to which the photo is stretched first, for networks that know
                pictures of that size alone, or a function from a scale of the `views` to them.
            max_side: without `size` and windows, a photo whose longer side has more pixels is
                shrunk to that: for photos that do not fit in memory, or that are far larger than
                those of the training. None segments it at its own size.
            interpolation: of a photo that is stretched to `size`, or scaled.

        Returns:
            (H, W) uint8 class ids.

        Raises:
            DataError: the image is not (H, W, 3) uint8, or is empty.
            ConfigError: `size` or `max_side` is less than 1.
        """
        photo = self.prepare(image, size=size, max_side=max_side, interpolation=interpolation)
        (wait,) = self.start([photo])
        return wait().label

    def prepare(
        self,
        image: np.ndarray,
        *,
        size: SeenSize | None = None,
        max_side: int | None = None,
        interpolation: Interpolation = "bilinear",
        out_size: Size | None = None,
    ) -> Prepared:
        """Makes of an RGB image what the network is to see; may be called in any thread.

        Args:
            image: as for `labels`, and so are `size`, `max_side` and `interpolation`.
            size: height and width to which the photo is stretched first.
            max_side: longest side that is not shrunk.
            interpolation: of a photo that is stretched to `size`, or scaled.
            out_size: height and width of the result, to which the logits are interpolated from
                those at which the photo is segmented. None: the photo's own.

        Raises:
            DataError: the image is not (H, W, 3) uint8, or is empty.
            ConfigError: `size` or `max_side` is less than 1.
        """
        check_image(image)
        own = (image.shape[0], image.shape[1])
        shrunk = not size and not self._fixed_size and self.inner_size(own, None, max_side) != own
        sizes = [self.inner_size(own, size, max_side, scale) for scale in self._views.scales]

        def seen(inner: Size) -> np.ndarray:
            if inner == own:
                return image
            # The stretch is that of training and evaluation; mere shrinking had better not alias.
            smaller = max(inner) < max(own)
            how = cv2.INTER_AREA if shrunk and smaller else MODES[interpolation]
            return cv2.resize(image, inner[::-1], interpolation=how)

        places = tuple(self._place(inner) for inner in sizes)
        return Prepared(tuple(seen(inner) for inner in sizes), places, out_size or own)

    def inner_size(
        self, own: Size, size: SeenSize | None, max_side: int | None, scale: float = 1.0
    ) -> Size:
        """Height and width at which `labels` segments a photo whose own are these.

        Raises:
            ConfigError: `size` or `max_side` is less than 1.
        """
        if size is not None and not callable(size) and min(size) < 1:
            raise ConfigError(f"size is {size[0]} {size[1]}, it must be at least 1 pixel each")
        if max_side is not None and max_side < 1:
            raise ConfigError(f"max_side is {max_side}, it must be at least 1 pixel")
        if self._fixed_size is not None:
            return self._fixed_size
        if callable(size):
            return size(scale)
        if size is not None:
            return scaled(size, scale)
        limit = max_side if self._through is None and max_side is not None else max(own)
        factor = min(1.0, limit / max(own))
        inner = max(1, round(own[0] * factor)), max(1, round(own[1] * factor))
        return scaled(inner, scale)

    def room(self, photo: Prepared, detail: Detail = "label") -> int:
        """How many photos of the same places `start` takes, and fills a batch up to."""
        if self._through is not None and not self._by_strips(photo, detail):
            return 1  # whose windows fill batches, and whose logits are large
        largest = max((place.size for place in photo.places), key=math.prod)
        return self._batches.room(largest, 1 if self._through else len(self._views))

    def start(
        self, photos: Sequence[Prepared], detail: Detail = "label"
    ) -> list[Callable[[], Pixels]]:
        """Starts the network on photos of the same places; what is returned waits for the result.

        That may be called in another thread, while this one starts the next photos.

        Labels and confidence of a photo need a few maps of its size besides the logits at the
        network's own resolution; windows hold the logits of a strip. All logits of a photo are held
        where windows meet probabilities, other sizes of the result, or several `views`.

        Args:
            photos: by `prepare`, at most as many as there is `room` for.
            detail: what is read off besides the label map: its "confidence", or that and the
                "probabilities" of all classes.

        Returns:
            For each photo a function that gives what was found.
        """
        if self._through is not None and self._by_strips(photos[0], detail):
            pictures = [photo.pictures[0] for photo in photos]
            found = self._through.pixels(pictures, detail == "confidence")
            return [functools.partial(_given, pixels) for pixels in found]
        if self._views.plain:
            every = self._logits(photos)
            read = functools.partial(read_planes, temperature=self._temperature)
        else:
            every, read = self._probabilities(photos), read_probabilities
        return [
            functools.partial(read, planes, photo.out, detail)
            for planes, photo in zip(every, photos, strict=True)
        ]

    def _place(self, size: Size) -> Place:
        """Where a picture of a size lies."""
        if self._through is not None:
            return Place(self._through.side(size), told=False)
        told = fits_canvas(self._config, size)
        canvas = self._canvases.holding(size) if told else None
        if canvas is not None:
            return Place(canvas, told=True)
        multiple = self.multiple or (1 if told else _MULTIPLE)
        return Place((round_up(size[0], multiple), round_up(size[1], multiple)), told=False)

    def _by_strips(self, photo: Prepared, detail: Detail) -> bool:
        """Whether what windows say of a photo can be read strip by strip."""
        picture = photo.pictures[0]
        return self._views.plain and detail != "probabilities" and picture.shape[:2] == photo.out

    def _logits(self, photos: Sequence[Prepared]) -> list[Planes]:
        """Starts the network on photos at the first scale; the logits of each."""
        if self._through is None:
            return self._started(photos, 0, False, self.room(photos[0]))
        (photo,) = photos
        (logits,) = self._through.logits(photo.pictures)
        return [lambda: planes_of(logits, photo.out)]

    def _probabilities(self, photos: Sequence[Prepared]) -> list[Planes]:
        """Starts the network on all views of photos; the mean probabilities of each."""
        ways = [
            (scale, mirrored)
            for scale, _ in enumerate(self._views.scales)
            for mirrored in self._views.mirrored
        ]
        if self._through is None:
            views = [self._started(photos, *way, self.room(photos[0])) for way in ways]
            return [
                mean_probabilities(of_photo, photo.out, self._temperature)
                for of_photo, photo in zip(zip(*views, strict=True), photos, strict=True)
            ]
        (photo,) = photos
        pictures = [_mirrored(photo.pictures[scale], mirrored) for scale, mirrored in ways]
        views = (
            _placed_back(functools.partial(planes_of, logits, photo.out), mirrored)
            for logits, (_, mirrored) in zip(self._through.logits(pictures), ways, strict=True)
        )
        classes = self.label_set.num_classes
        return [summed_probabilities(views, photo.out, classes, self._temperature)]

    def _started(
        self, photos: Sequence[Prepared], scale: int, mirrored: bool, count: int
    ) -> list[Planes]:
        """Starts the network on one view of photos; the logits of each."""
        pictures = [_mirrored(photo.pictures[scale], mirrored) for photo in photos]
        outs, place = [photo.out for photo in photos], photos[0].places[scale]
        found = start_look(self._look, pictures, place, outs, count, self._padding)
        return [_placed_back(planes, mirrored) for planes in found]


def _mirrored(picture: np.ndarray, mirrored: bool) -> np.ndarray:
    return picture[:, ::-1] if mirrored else picture


def _placed_back(planes: Planes, mirrored: bool) -> Planes:
    return mirrored_back(planes) if mirrored else planes


def _given(pixels: Pixels) -> Pixels:
    return pixels


def check_image(image: np.ndarray) -> None:
    """Raises a `DataError` unless the image is (H, W, 3) uint8 and not empty."""
    shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        raise DataError(
            f"an image must be (H, W, 3) uint8 RGB, found {shape} {dtype}: "
            "flaxseg.inference.read_image reads files into that form"
        )
