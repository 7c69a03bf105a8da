"""A model as `flaxseg predict` looks through it: what its files say about photos, in one place."""

import dataclasses
from collections.abc import Callable

import numpy as np

from flaxseg.data.transforms.geometry import Interpolation
from flaxseg.inference.pixels import Detail, Pixels
from flaxseg.inference.predict import Predictor
from flaxseg.inference.windows import Size


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """A network, and how it looks at photos.

    Attributes:
        predictor: the network.
        seen_size: from a photo's size to the one to which it is stretched first, if any.
        max_side: longest side, in pixels, that is not shrunk; None: any.
        interpolation: of photos that are stretched.
    """

    predictor: Predictor
    seen_size: Callable[[Size], Size | None]
    max_side: int | None
    interpolation: Interpolation

    def inner_size(self, own: Size) -> Size:
        """Height and width at which a photo is segmented whose own are these."""
        return self.predictor.inner_size(own, self.seen_size(own), self.max_side)

    def shrinks(self, own: Size) -> bool:
        """Whether such a photo is segmented smaller because of `max_side`."""
        return self.inner_size(own) != self.predictor.inner_size(own, self.seen_size(own), None)

    def start(
        self, photo: np.ndarray, *, out_size: Size | None = None, detail: Detail = "label"
    ) -> Callable[[], Pixels]:
        """Starts the network on a photo, see `Predictor.start`.

        Args:
            photo: (H, W, 3) uint8 RGB.
            out_size: height and width of the result; None: the photo's own.
            detail: what is read off besides the label map.

        Returns:
            A function that waits for the result.

        Raises:
            DataError: the photo is not (H, W, 3) uint8, or is empty.
        """
        return self.predictor.start(
            photo,
            size=self.seen_size((photo.shape[0], photo.shape[1])),
            max_side=self.max_side,
            interpolation=self.interpolation,
            out_size=out_size,
            detail=detail,
        )
