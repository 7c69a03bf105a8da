"""Random scale, crop, rotation, flips and colours."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import numpy as np

from flaxseg.data.source import Example
from flaxseg.data.transforms.color import ColorJitter, PhotometricDistortion
from flaxseg.data.transforms.geometry import (
    Interpolation,
    View,
    check_interpolation,
    check_size,
    fit_factor,
    flip,
    show,
    whole,
)
from flaxseg.data.transforms.mirrored import Pair, mirror_table
from flaxseg.data.transforms.windows import RareClasses, draw_view
from flaxseg.errors import ConfigError

Transform = Callable[[Example, np.random.Generator], Example]
"""What a loader applies to every example it reads."""


@dataclasses.dataclass(frozen=True)
class TrainTransform:
    """Random scale, crop, rotation, flips and colours, to one image size.

    Attributes:
        image_size: height and width of the result in pixels.
        scale: lowest and highest factor of the picture before a crop; without effect for "stretch".
        hflip: probability of a left-right flip.
        vflip: probability of an upside-down flip.
        color_jitter: largest change of brightness, contrast and saturation (each as a factor
            around 1) and of hue (as a part of the full circle, at most 0.5); see `ColorJitter`.
        resize: "crop" scales the picture and cuts a window of image_size out of it, filled up with
            the mean colour and label 255; "stretch" resizes the whole picture to image_size.
        scale_law: how the factor is distributed; mmsegmentation's is "uniform".
        base_size: longer and shorter side, within which the picture is fitted before the factor
            applies (mmsegmentation's `scale`, such as 2048 and 512); None: its own size.
        cat_max_ratio: crops where one class covers this share of the labelled pixels, or more, are
            drawn anew, up to ten times; 1 takes any. See `draw_view`.
        rare: crops that contain a pixel of a rare class.
        rotation: largest angle in degrees by which the window is turned about its middle, uniform
            to either side. The free corners show what lies beside the window, and beyond the
            border of the picture the mean colour and label 255. The windows of `cat_max_ratio` and
            `rare` are those before they are turned.
        photometric: changes colours in place of `color_jitter`.
        interpolation: of the picture; label maps always take the nearest pixel.
        flip_pairs: ids of classes that are each other's mirror image: a left-right flip swaps them.
    """

    image_size: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.0)
    resize: Literal["crop", "stretch"] = "crop"
    scale_law: Literal["log-uniform", "uniform"] = "log-uniform"
    base_size: tuple[int, int] | None = None
    cat_max_ratio: float = 1.0
    rare: RareClasses | None = None
    rotation: float = 0.0
    photometric: PhotometricDistortion | None = None
    interpolation: Interpolation = "bilinear"
    flip_pairs: tuple[Pair, ...] = ()

    def __post_init__(self):
        check_size(self.image_size)
        check_interpolation(self.interpolation)
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"scale {self.scale}: give two factors, 0 < lowest <= highest")
        if not all(0 <= chance <= 1 for chance in (self.hflip, self.vflip)):
            raise ConfigError(f"hflip {self.hflip}, vflip {self.vflip}: give values from 0 to 1")
        ColorJitter(*self.color_jitter)
        if self.resize not in ("crop", "stretch"):
            raise ConfigError(f"resize {self.resize!r}: use crop or stretch")
        if self.scale_law not in ("log-uniform", "uniform"):
            raise ConfigError(f"scale_law {self.scale_law!r}: use log-uniform or uniform")
        if self.base_size is not None and min(self.base_size) < 1:
            raise ConfigError(f"base_size {self.base_size}: give two sides of at least 1 pixel")
        if not 0 < self.cat_max_ratio <= 1:
            raise ConfigError(f"cat_max_ratio {self.cat_max_ratio}: give a share above 0, up to 1")
        if not 0 <= self.rotation <= 180:
            raise ConfigError(f"rotation {self.rotation}: give 0 to 180 degrees")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments one example; the result has `image_size`."""
        recolor = self._color.draw(rng)
        view = self._draw_view(example.label, rng)
        result = show(example, view, self.image_size, recolor, self.interpolation)
        return flip(result, rng.uniform() < self.hflip, rng.uniform() < self.vflip, self._mirror)

    @functools.cached_property
    def _mirror(self) -> np.ndarray | None:
        return mirror_table(self.flip_pairs) if self.flip_pairs else None

    @functools.cached_property
    def _color(self) -> ColorJitter | PhotometricDistortion:
        return self.photometric or ColorJitter(*self.color_jitter)

    def _draw_view(self, label: np.ndarray, rng: np.random.Generator) -> View:
        if self.resize == "stretch":
            view = whole(label.shape, self.image_size)
        else:
            view = draw_view(
                label,
                self.image_size,
                self._draw_factor(label.shape, rng),
                rng,
                cat_max_ratio=self.cat_max_ratio,
                rare=self.rare,
            )
        if not self.rotation:
            return view
        return dataclasses.replace(view, angle=rng.uniform(-self.rotation, self.rotation))

    def _draw_factor(self, shape: tuple[int, ...], rng: np.random.Generator) -> float:
        """The magnification of a picture of this height and width."""
        if self.scale_law == "uniform":
            factor = rng.uniform(*self.scale)
        else:
            factor = np.exp(rng.uniform(*np.log(self.scale)))
        return factor if self.base_size is None else factor * fit_factor(shape, self.base_size)
