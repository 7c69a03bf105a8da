"""What the label maps of a data set hold, and the class weights that follow from it."""

import dataclasses
import functools

import numpy as np

from flaxseg.labels import IGNORE

_ENET_OFFSET = 1.02


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Sizes of the pictures and pixels of every label value, image by image.

    Attributes:
        sizes: height and width, (N, 2).
        counts: number of pixels of every label value, (N, 256).
        num_classes: number of classes K.
    """

    sizes: np.ndarray
    counts: np.ndarray
    num_classes: int

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """Number of pixels of every class, (K,) int64."""
        return self.counts[:, : self.num_classes].sum(0, dtype=np.int64)

    @functools.cached_property
    def ignored(self) -> int:
        """Number of pixels labelled 255."""
        return int(self.counts[:, IGNORE].sum(dtype=np.int64))

    @functools.cached_property
    def images(self) -> np.ndarray:
        """Number of images in which each class occurs, (K,) int64."""
        return (self.counts[:, : self.num_classes] > 0).sum(0)

    @functools.cached_property
    def image_pixels(self) -> np.ndarray:
        """Number of labelled pixels of the images in which each class occurs, (K,) int64."""
        known = self.counts[:, : self.num_classes].astype(np.int64)
        return known.sum(1) @ (known > 0)

    @functools.cached_property
    def empty(self) -> np.ndarray:
        """Positions of the images without any labelled pixel."""
        return np.flatnonzero(~self.counts[:, : self.num_classes].any(1))

    @functools.cached_property
    def uniform(self) -> np.ndarray:
        """Positions of the images whose labelled pixels are of one class."""
        return np.flatnonzero((self.counts[:, : self.num_classes] > 0).sum(1) == 1)

    @functools.cached_property
    def shares(self) -> np.ndarray:
        """Share of every class among the labelled pixels, (K,) float64; 0 if there are none."""
        return self.pixels / max(self.pixels.sum(), 1)

    def first(self, count: int) -> "Statistics":
        """Those of the first images."""
        return Statistics(self.sizes[:count], self.counts[:count], self.num_classes)

    def median_frequency_weights(self) -> np.ndarray:
        """Class weights by median frequency balancing, (K,) float64; 0 for absent classes.

        median(f) / f_c, where f_c is the share of class c among the labelled pixels of the images
        in which c occurs, and the median is that of the classes that occur (Eigen and Fergus 2015,
        https://arxiv.org/abs/1411.4734, section 6.3.2).
        """
        present = self.pixels > 0
        frequency = self.pixels[present] / self.image_pixels[present]
        weights = np.zeros(self.num_classes)
        if present.any():
            weights[present] = np.median(frequency) / frequency
        return weights

    def enet_weights(self) -> np.ndarray:
        """Class weights 1 / log(1.02 + share), (K,) float64, at most 50.5.

        Paszke et al. 2016, https://arxiv.org/abs/1606.02147, section 5.2.
        """
        return 1 / np.log(_ENET_OFFSET + self.shares)
