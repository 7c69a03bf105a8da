"""The place where predictions call a network: batches of pictures in, logits out."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from flaxseg.inference.canvas import Low, canvas_logits, enlargement, planes
from flaxseg.inference.logits import enlarged_by, lowest_logits
from flaxseg.inference.pixels import Planes
from flaxseg.inference.windows import Size
from flaxseg.labels import LabelSet
from flaxseg.models import Config, Model
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import replicated, split_batch

_AREA = 8 * 512 * 512
"""Pixels of the network's images that an accelerator gets at a time where nothing else is said.

One picture keeps the cores of a CPU busy: more at a time would only take more memory."""


class Place(NamedTuple):
    """The images in whose upper left corners pictures lie; those of one place go together.

    Attributes:
        size: height and width of the images.
        told: the network is told how far each picture reaches, and gives the logits that the
            picture would get alone; it sees the whole image otherwise.
    """

    size: Size
    told: bool


class Batches(NamedTuple):
    """How many pictures go to the network together.

    Attributes:
        size: as was asked for; None: one on each device that is a CPU; else what makes two million
            pixels on each device, which is eight images of 512 x 512, and at least one.
        devices: that share a batch; it becomes a multiple of them.
        pictures: how many there are; a batch is no larger.
    """

    size: int | None = 1
    devices: int = 1
    pictures: int | None = None

    def room(self, size: Size, looks: int = 1) -> int:
        """The size of a batch.

        Args:
            size: height and width of the network's images.
            looks: at each picture, whose logits are held together.
        """
        area = 0 if jax.default_backend() == "cpu" else _AREA
        usual = self.devices * max(1, area // (size[0] * size[1] * looks))
        count = min(self.size or usual, self.pictures or math.inf)
        return -(-int(count) // self.devices) * self.devices


class Look(Protocol):
    """What a network says about a batch of pictures; any program can stand for it.

    Attributes:
        config: of the network: which sizes it takes.
    """

    config: Config

    def __call__(self, images: np.ndarray, sizes: np.ndarray, place: Place) -> Low:
        """Starts the network, and waits for nothing.

        Args:
            images: (B, H, W, 3) uint8, as large as the place.
            sizes: height and width of the picture in each image, (B, 2) int32.
            place: whether the network is to be told of the sizes.

        Returns:
            Logits (B, h, w, K) and, if it is told, how far the pictures reach in them.
        """
        ...

    def enlarged_by(self, size: Size) -> bool | None:
        """`align_corners` of the interpolation from untold logits to images of a size, if any."""
        ...


class ModelLook:
    """A model of this library; each place compiles once for each size of a batch."""

    def __init__(
        self, model: Model, labels: LabelSet, preprocess: Preprocess, mesh: Mesh | None = None
    ):
        """Takes the weights of a model as they are now.

        Args:
            model: a segmenter, in train or eval mode.
            labels: the classes it knows.
            preprocess: how its images were normalised.
            mesh: devices of this process, over which batches are split; None runs on one.
        """
        self.config = model.config
        graphdef, *weights = nnx.split(model, nnx.Param, nnx.BatchStat)
        self._split = None if mesh is None else split_batch(mesh)
        self._weights = weights if mesh is None else jax.device_put(weights, replicated(mesh))
        self._rule = functools.partial(enlarged_by, model)

        @jax.jit
        def told(weights: list[nnx.State], images: jax.Array, sizes: jax.Array) -> Low:
            merged = nnx.merge(graphdef, *weights)
            return canvas_logits(merged, labels, preprocess, images, sizes)

        @jax.jit
        def untold(weights: list[nnx.State], images: jax.Array) -> jax.Array:
            return lowest_logits(nnx.merge(graphdef, *weights), labels, preprocess, images)

        self._told, self._untold = told, untold

    def __call__(self, images: np.ndarray, sizes: np.ndarray, place: Place) -> Low:
        """See `Look`."""
        given = (images, sizes)
        if self._split is not None:
            given = jax.device_put(given, self._split)
        if place.told:
            return self._told(self._weights, *given)
        logits = self._untold(self._weights, given[0])
        return Low(logits, jnp.asarray(sizes))

    def enlarged_by(self, size: Size) -> bool | None:
        """See `Look`."""
        return self._rule(size)


def batch_of(
    pictures: Sequence[np.ndarray], place: Place, count: int, fill: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures in the corners of images, and blank images that fill a batch up.

    Args:
        pictures: (h, w, 3) uint8 each, no larger than the place.
        place: size of the images.
        count: images of the batch.
        fill: colour beyond the pictures, (3,) uint8.

    Returns:
        (B, H, W, 3) uint8, and height and width of each picture, (B, 2) int32.
    """
    images = np.empty((count, *place.size, 3), np.uint8)
    images[:] = fill
    sizes = np.array([place.size] * count, np.int32)
    for image, size, picture in zip(images, sizes, pictures, strict=False):
        image[: picture.shape[0], : picture.shape[1]] = picture
        size[:] = picture.shape[:2]
    return images, sizes


def start_look(
    look: Look,
    pictures: Sequence[np.ndarray],
    place: Place,
    outs: Sequence[Size],
    count: int,
    fill: np.ndarray,
) -> list[Planes]:
    """Starts a network on pictures; what is returned waits for it, in any thread.

    Args:
        look: the network.
        pictures: (h, w, 3) uint8 each, no larger than the place.
        place: where they lie.
        outs: for each picture, to which height and width its logits are interpolated.
        count: images of the batch.
        fill: colour beyond the pictures, (3,) uint8.

    Returns:
        For each picture the logits of one class after the other.
    """
    logits, reach = look(*batch_of(pictures, place, count, fill), place)
    corners = None if place.told else look.enlarged_by(place.size)

    def read(index: int, own: Size, out: Size) -> Iterator[np.ndarray]:
        low = np.asarray(logits)[index]
        if place.told:
            height, width = np.asarray(reach)[index]
            return planes(low[:height, :width], look.config, own, out)
        return _cut_planes(low, place.size, corners, own, out)

    return [
        functools.partial(read, index, (picture.shape[0], picture.shape[1]), out)
        for index, (picture, out) in enumerate(zip(pictures, outs, strict=True))
    ]


def _cut_planes(
    low: np.ndarray, image: Size, corners: bool | None, own: Size, out: Size
) -> Iterator[np.ndarray]:
    """One class after the other: enlarged to the image, cut back to the picture, interpolated."""
    first = enlargement((low.shape[0], low.shape[1]), image, bool(corners))
    last = enlargement(own, out, False)
    for index in range(low.shape[-1]):
        yield last(first(np.ascontiguousarray(low[..., index]))[: own[0], : own[1]])
