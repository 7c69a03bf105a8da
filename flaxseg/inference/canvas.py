"""Pictures of many sizes through few programs, each with the logits that it would get alone."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from flaxseg.errors import ConfigError
from flaxseg.inference.logits import check_classes, fitting_size
from flaxseg.inference.windows import Size
from flaxseg.labels import IGNORE, LabelSet
from flaxseg.models import Config, Model, fold
from flaxseg.ops import EXACT, interpolated, on_canvas
from flaxseg.ops.canvas import reaches
from flaxseg.ops.resize import interpolation_matrix, interpolation_within
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import replicated, whole

TILE = 512
"""Height and width of a part of the label maps that is compared at a time."""

_ROWS = 32
"""Rows of it whose logits are there at a time."""

USUAL_SIDE = 2048
"""Pixels of the longest side of pictures of which nothing is known."""

_MULTIPLE = 32
"""Sides of a canvas are multiples of it: no network halves a map more often than five times."""


class Canvases:
    """The sizes for which a network is compiled, few and always the same ones."""

    def __init__(self, sizes: Iterable[Size]):
        """Takes the sizes, whose sides are rounded up to multiples of 32 pixels."""
        rounded = {(round_up(height), round_up(width)) for height, width in sizes}
        self.sizes = sorted(rounded, key=lambda size: (size[0] * size[1], size))

    @classmethod
    def within(cls, side: int) -> "Canvases":
        """Four for pictures whose longer side has at most so many pixels.

        Squares of a quarter, a half and the whole of it, and three quarters of the whole one for
        pictures that lie.
        """
        return cls((h * side // 4, w * side // 4) for h, w in ((1, 1), (2, 2), (3, 4), (4, 4)))

    @classmethod
    def fitted(cls, base: Size) -> "Canvases":
        """Four for pictures that are fitted into a longer and a shorter side.

        The whole, and one and a half times as long as the shorter side; lying and upright.
        """
        short, long = sorted(base)
        usual = min(long, short * 3 // 2)
        return cls(((short, usual), (usual, short), (short, long), (long, short)))

    @classmethod
    def seen(cls, base: Size | None, multiple: int, side: int = USUAL_SIDE) -> "Canvases":
        """Four for pictures as `flaxseg.data.EvalTransform` makes them.

        Args:
            base: longer and shorter side within which they are fitted, if they are.
            multiple: their sides are then stretched up to multiples of it.
            side: pixels of the longest side of pictures that are not fitted.
        """
        if base is None:
            return cls.within(round_up(side, multiple))
        return cls.fitted((round_up(base[0], multiple), round_up(base[1], multiple)))

    def times(self, scales: Iterable[float]) -> "Canvases":
        """Those for pictures at each of several scales."""
        return Canvases(
            (math.ceil(height * scale), math.ceil(width * scale))
            for height, width in self.sizes
            for scale in scales
        )

    def holding(self, size: Size) -> Size | None:
        """The smallest one that a picture of this size fits on; None: there is none."""
        return next((s for s in self.sizes if s[0] >= size[0] and s[1] >= size[1]), None)


def fits_canvas(config: Config, size: Size) -> bool:
    """Whether a network takes a canvas, and pictures of this size: some may be too small."""
    try:
        config.check_size(fitting_size(config, size))
    except ConfigError:
        return False
    return config.takes_canvas


def round_up(side: int, multiple: int = _MULTIPLE) -> int:
    """The multiple from 1 times on that is nearest above."""
    return max(1, -(-side // multiple)) * multiple


class Low(NamedTuple):
    """What a network says about pictures on a canvas, at its own resolution.

    Attributes:
        logits: (B, h, w, K), float32 or wider; any finite numbers beyond the pictures.
        reach: how far these reach in them, down and to the right, (B, 2).
    """

    logits: jax.Array
    reach: jax.Array


def canvas_logits(
    model: Model, labels: LabelSet, preprocess: Preprocess, images: jax.Array, reach: jax.Array
) -> Low:
    """What the model says about pictures on a canvas, in eval mode; to be called inside `jax.jit`.

    Args:
        model: a segmenter that takes a canvas, in train or eval mode.
        labels: the classes the model knows.
        preprocess: how its images were normalised.
        images: (B, H, W, 3), 0 to 255, a picture in the upper left corner of each.
        reach: height and width of each picture, (B, 2), int32.

    Raises:
        ConfigError: the model has another number of classes than `labels`.
    """
    size = (images.shape[1], images.shape[2])
    inputs = preprocess(jnp.asarray(images))
    divisor = model.config.size_divisor
    if divisor > 1:
        own, reach = reach, -(-reach // divisor) * divisor
        rows, cols = (
            interpolation_within(n, n, reach[:, axis], own[:, axis], False, inputs.dtype)
            for axis, n in enumerate(size)
        )
        inputs = interpolated(inputs, rows, cols)
    with on_canvas(size, reach):
        logits = fold(model)(inputs, resize=False).logits
        found = reaches((logits.shape[1], logits.shape[2]))
    assert found is not None
    check_classes(logits, labels)
    return Low(logits, jnp.stack(found, 1))


def tile_labels(
    config: Config,
    canvas: Size,
    low: Low,
    picture: jax.Array,
    labelled: jax.Array,
    first: jax.Array,
) -> jax.Array:
    """The class with the highest logit at each pixel of a part of the label maps, (B, T, T) int32.

    To be called inside `jax.jit`.

    Args:
        config: of the network.
        canvas: height and width of the images that it saw.
        low: what it says.
        picture: height and width of the picture in each of them, (B, 2).
        labelled: those of the label maps, to which the logits of the pictures' pixels are
            interpolated, (B, 2).
        first: upper left pixel of the part, (2,).
    """
    sides = zip(
        canvas, low.logits.shape[1:3], low.reach.T, picture.T, labelled.T, first, strict=True
    )
    rows, cols = (_enlarging(config, low.logits.dtype, *side) for side in sides)

    def read(rows: jax.Array) -> jax.Array:
        line = jnp.einsum("boh,bhwc->bowc", rows, low.logits, precision=EXACT)
        line = jnp.einsum("bow,bhwc->bhoc", cols, line, precision=EXACT)
        return jnp.argmax(line, -1).astype(jnp.int32)

    # Some rows after the other, as the logits of all pixels are large.
    parts = rows.reshape(len(rows), -1, _ROWS, rows.shape[-1]).swapaxes(0, 1)
    return jax.lax.map(read, parts).swapaxes(0, 1).reshape(len(rows), TILE, TILE)


def _enlarging(
    config: Config,
    dtype: Any,
    canvas: int,
    n: int,
    reach: jax.Array,
    picture: jax.Array,
    labelled: jax.Array,
    first: jax.Array,
) -> jax.Array:
    """Matrices (B, T, n) from the logits of a network to those of a part of the pixels."""
    divisor = config.size_divisor
    sides = config.enlargements(n, canvas)
    targets = config.enlargements(reach, -(-picture // divisor) * divisor)
    steps = [(out, to, corners) for (out, corners), (to, _) in zip(sides, targets, strict=True)]
    if divisor > 1:
        steps.append((canvas, picture, False))
    matrices = []
    for out, to, corners in steps:
        matrices.append(interpolation_within(out, n, to, reach, corners, dtype))
        n, reach = out, to
    matrices.append(interpolation_within(TILE, n, labelled, reach, False, dtype, first))
    return functools.reduce(lambda done, last: jnp.matmul(last, done, precision=EXACT), matrices)


class Tile(NamedTuple):
    """A part of label maps.

    Attributes:
        label: (B, T, T), `IGNORE` beyond the maps.
        first: its upper left pixel, (2,) int32.
        within: the rows and columns of the maps that it holds.
    """

    label: np.ndarray
    first: np.ndarray
    within: tuple[slice, slice]


def tiles(label: np.ndarray) -> Iterator[Tile]:
    """Parts of label maps (B, H, W), all of one size."""
    height, width = label.shape[1:]
    for top, left in itertools.product(range(0, height, TILE), range(0, width, TILE)):
        within = slice(top, min(top + TILE, height)), slice(left, min(left + TILE, width))
        part = np.full((len(label), TILE, TILE), IGNORE, label.dtype)
        part[:, : height - top, : width - left] = label[:, *within]
        yield Tile(part, np.array((top, left), np.int32), within)


def on_corner(images: np.ndarray, size: Size) -> np.ndarray:
    """Images (B, h, w, 3) in the upper left corner of black ones of a size, (B, H, W, 3)."""
    canvas = np.zeros((len(images), *size, images.shape[-1]), images.dtype)
    canvas[:, : images.shape[1], : images.shape[2]] = images
    return canvas


def make_canvas_fns(
    graphdef: nnx.GraphDef,
    labels: LabelSet,
    preprocess: Preprocess,
    then: Callable[..., Any],
    mesh: Mesh | None = None,
) -> tuple[Callable[..., Low], Callable[..., Any]]:
    """Compiled functions for weights that change between calls; each canvas compiles once.

    Args:
        graphdef: of `nnx.split(model, nnx.Param, nnx.BatchStat)`, of a model that takes a canvas.
        labels: the classes the model knows.
        preprocess: how its images were normalised.
        then: (classes (B, T, T) int32, *more) -> the result, a function that can be traced.
        mesh: devices on which the weights lie, whole or split; every device gets the whole result.

    Returns:
        A function of (params, stats, images, reach) that looks, see `canvas_logits`, and one that
        takes the arguments of `tile_labels`, and more for `then`.
    """

    def look(params: nnx.State, stats: nnx.State, images: jax.Array, reach: jax.Array) -> Low:
        model = nnx.merge(graphdef, *whole((params, stats), mesh))
        return canvas_logits(model, labels, preprocess, images, reach)

    def read(config: Config, canvas: Size, low: Low, *more: Any) -> Any:
        return then(tile_labels(config, canvas, low, *more[:3]), *more[3:])

    everywhere = None if mesh is None else replicated(mesh)
    return jax.jit(look), jax.jit(read, static_argnums=(0, 1), out_shardings=everywhere)


def planes(low: np.ndarray, config: Config, size: Size, out: Size) -> Iterator[np.ndarray]:
    """The logits of one class after the other at every pixel, on the host.

    Args:
        low: of one picture, (h, w, K).
        config: of its network.
        size: height and width of the picture.
        out: those to which they are interpolated after that.

    Yields:
        (H, W) in the dtype of `low`.
    """
    steps = [
        (*config.enlargements(n, fit), *((side, False) for side in sides))
        for n, fit, *sides in zip(low.shape[:2], fitting_size(config, size), size, out, strict=True)
    ]
    enlarge = [
        enlargement(before, (rows[0], cols[0]), rows[1])
        for before, rows, cols in _consecutive(low.shape[:2], *steps)
    ]
    for index in range(low.shape[-1]):
        plane = np.ascontiguousarray(low[..., index])
        for step in enlarge:
            plane = step(plane)
        yield plane


def _consecutive(size: Size, rows: Any, cols: Any) -> Any:
    for row, col in zip(rows, cols, strict=True):
        yield size, row, col
        size = (row[0], col[0])


def enlargement(before: Size, after: Size, align_corners: bool) -> Callable[..., np.ndarray]:
    """A bilinear interpolation of maps (H, W) from one size to another, on the host."""
    if before == after:
        return lambda plane: plane
    if not align_corners:
        return lambda plane: cv2.resize(plane, after[::-1], interpolation=cv2.INTER_LINEAR)
    rows, cols = (interpolation_matrix(n, out, True) for n, out in zip(before, after, strict=True))
    return lambda plane: rows.astype(plane.dtype) @ plane @ cols.T.astype(plane.dtype)
