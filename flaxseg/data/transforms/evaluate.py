"""What validation pictures go through."""

import dataclasses
import math

import cv2
import numpy as np

from flaxseg.data.source import Example
from flaxseg.data.transforms.geometry import (
    MODES,
    Interpolation,
    check_interpolation,
    check_size,
    fit_factor,
    resize,
)
from flaxseg.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class EvalTransform:
    """The picture as it is, or at the size at which a network is to see it; nothing is random.

    Attributes:
        size: height and width in pixels to which picture and label map are stretched; None leaves
            them as they are.
        interpolation: of the picture.
        base_size: longer and shorter side within which the picture is fitted, keeping its shape.
            The label map stays, so that the scores are of its own pixels.
        multiple: both sides of the picture, once fitted, are stretched up to multiples of it.
    """

    size: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"
    base_size: tuple[int, int] | None = None
    multiple: int = 1

    def __post_init__(self):
        if self.size is not None:
            check_size(self.size)
            if self.base_size is not None or self.multiple != 1:
                raise ConfigError("give a size, or a base size and a multiple, not both")
        check_interpolation(self.interpolation)
        if self.base_size is not None and min(self.base_size) < 1:
            raise ConfigError(f"base size {self.base_size}: give two sides of at least 1 pixel")
        if self.multiple < 1:
            raise ConfigError(f"multiple {self.multiple}: give at least 1")

    def __call__(self, example: Example, rng: np.random.Generator | None = None) -> Example:
        """Resizes one example."""
        if self.size is not None:
            return resize(example, self.size, self.interpolation)
        height, width = self.seen_size((example.image.shape[0], example.image.shape[1]))
        if (height, width) == example.image.shape[:2]:
            return example
        mode = MODES[self.interpolation]
        image = cv2.resize(example.image, (width, height), interpolation=mode)
        return Example(image, example.label)

    def seen_size(self, shape: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
        """Height and width at which the network sees a picture of this height and width.

        Args:
            shape: the picture's own.
            scale: of `size`, of `base_size`, or of its own size; then follows the `multiple`.
        """
        if self.size is not None:
            shape, factor = self.size, scale
        elif self.base_size is None:
            factor = scale
        else:
            factor = fit_factor(shape, self.base_size) * scale
        height, width = (
            math.ceil(max(1, int(side * factor + 0.5)) / self.multiple) * self.multiple
            for side in shape
        )
        return height, width
