"""What validation pictures go through."""

import dataclasses

import numpy as np

from flaxseg.data.source import Example
from flaxseg.data.transforms.geometry import (
    Interpolation,
    check_interpolation,
    check_size,
    resize,
)


@dataclasses.dataclass(frozen=True)
class EvalTransform:
    """The picture as it is, or stretched to one size.

    Attributes:
        size: height and width in pixels; None leaves the picture untouched.
        interpolation: of the picture.
    """

    size: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"

    def __post_init__(self):
        if self.size is not None:
            check_size(self.size)
        check_interpolation(self.interpolation)

    def __call__(self, example: Example, rng: np.random.Generator | None = None) -> Example:
        """Resizes one example; nothing is random."""
        return example if self.size is None else resize(example, self.size, self.interpolation)
