"""A model as `flaxseg predict` looks through it: what its files say about photos, in one place."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from flaxseg import native
from flaxseg.data.transforms.geometry import Interpolation
from flaxseg.inference.opening import Pathlike, resolve_model_dir, run_settings
from flaxseg.inference.pixels import Detail, Pixels
from flaxseg.inference.predict import Predictor, Prepared, SeenSize
from flaxseg.inference.run_view import run_canvases, run_sizes, run_windows
from flaxseg.inference.views import PLAIN, Views
from flaxseg.inference.windows import Size
from flaxseg.ops import Precision
from flaxseg.sharding import make_mesh


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """A network, and how it looks at photos.

    Attributes:
        predictor: the network.
        seen_size: from a photo's size and a scale to the size to which it is stretched first, if
            it is.
        max_side: longest side, in pixels, that is not shrunk; None: any.
        interpolation: of photos that are stretched.
        labels_only: it gives labels, and nothing by which they could be trusted.
    """

    predictor: Predictor
    seen_size: Callable[[Size, float], Size] | None
    max_side: int | None
    interpolation: Interpolation
    labels_only: bool = False

    def inner_size(self, own: Size) -> Size:
        """Height and width at which a photo is segmented whose own are these."""
        return self.predictor.inner_size(own, self._seen_size(own), self.max_side)

    def shrinks(self, own: Size) -> bool:
        """Whether such a photo is segmented smaller because of `max_side`."""
        return self.inner_size(own) != self.predictor.inner_size(own, self._seen_size(own), None)

    def prepare(self, photo: np.ndarray, out_size: Size | None = None) -> Prepared:
        """Makes of a photo what the network is to see, see `Predictor.prepare`.

        Args:
            photo: (H, W, 3) uint8 RGB.
            out_size: height and width of the result; None: the photo's own.

        Raises:
            DataError: the photo is not (H, W, 3) uint8, or is empty.
        """
        return self.predictor.prepare(
            photo,
            size=self._seen_size((photo.shape[0], photo.shape[1])),
            max_side=self.max_side,
            interpolation=self.interpolation,
            out_size=out_size,
        )

    def start(self, photo: np.ndarray, detail: Detail = "label") -> Callable[[], Pixels]:
        """Starts the network on one photo, see `Predictor.start`.

        Args:
            photo: (H, W, 3) uint8 RGB.
            detail: what is read off besides the label map.

        Returns:
            A function that waits for the result.

        Raises:
            DataError: the photo is not (H, W, 3) uint8, or is empty.
        """
        (wait,) = self.predictor.start([self.prepare(photo)], detail)
        return wait

    def _seen_size(self, own: Size) -> SeenSize | None:
        return self.seen_size and functools.partial(self.seen_size, own)


def open_segmenter(
    model_dir: Pathlike,
    *,
    multiple: int | None = None,
    size: tuple[int, int] | None = None,
    max_side: int | None = 2048,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    views: Views = PLAIN,
    batch_size: int | None = None,
    photos: int | None = 1,
    matmul_precision: Precision = "highest",
) -> Segmenter:
    """A model that looks at photos as `predict_files` does, whose arguments these are.

    Args:
        views: the `scales`, and whether to `flip`.
        photos: how many there are; they are spread over the devices of this process. None: many.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: `multiple`, `size`, `max_side`, `window`, `stride` or `batch_size` does not
            fit.
    """
    loaded = native.load_with_meta(resolve_model_dir(model_dir), matmul_precision=matmul_precision)
    settings = run_settings(Path(model_dir))
    windows = run_windows(settings, window, stride)
    predictor = Predictor(
        loaded.model,
        loaded.labels,
        loaded.preprocess,
        loaded.temperature,
        multiple=multiple,
        windows=windows,
        canvases=run_canvases(settings, size, max_side),
        views=views,
        batch_size=batch_size,
        photos=photos,
        mesh=_own_devices(None if windows else photos),
    )
    predictor.inner_size((1, 1), size, max_side)  # refuses senseless ones before any work
    return Segmenter(
        predictor,
        run_sizes(settings, size),
        max_side,
        settings.get("interpolation", "bilinear"),
        getattr(loaded.model, "labels_only", False),
    )


def _own_devices(most: int | None) -> Mesh | None:
    """A mesh of the devices of this process, or of some; None for a single one."""
    devices = jax.local_devices()[:most]
    return make_mesh(devices) if len(devices) > 1 else None
