"""Large pictures looked at through overlapping windows, mmsegmentation's mode "slide"."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flaxseg.errors import ConfigError
from flaxseg.ops import resize_bilinear

Size = tuple[int, int]
Look = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Windows:
    """Where a network looks at a picture that is larger than those of its training.

    Attributes:
        size: height and width of a window in pixels; no window is larger than the picture.
        stride: rows and columns from one window to the next. The last one in each direction ends
            with the picture, and so may overlap more.
    """

    size: Size
    stride: Size

    def __post_init__(self):
        for side, step in zip(self.size, self.stride, strict=True):
            if not 1 <= step <= side:
                raise ConfigError(
                    f"windows of {self.size[0]} x {self.size[1]} pixels every {self.stride[0]} x "
                    f"{self.stride[1]}: give strides from 1 to the window's side, so that no pixel "
                    "is left out"
                )

    def within(self, shape: Size) -> Size:
        """Height and width of the windows on a picture of this height and width."""
        return min(self.size[0], shape[0]), min(self.size[1], shape[1])

    def corners(self, shape: Size) -> list[tuple[int, int]]:
        """The upper left pixel (row, column) of each window, row by row."""
        rows, columns = (
            [min(start, length - side) for start in range(0, length - side + step, step)]
            for length, side, step in zip(shape, self.within(shape), self.stride, strict=True)
        )
        return [(row, column) for row in rows for column in columns]


def make_windows(size: Size | None, stride: Size | None) -> Windows | None:
    """Windows of a size; strides are two thirds of it where none are given.

    Raises:
        ConfigError: a stride is larger than the window, or less than a pixel.
    """
    if size is None:
        return None
    return Windows(size, stride or (max(1, size[0] * 2 // 3), max(1, size[1] * 2 // 3)))


class Found(NamedTuple):
    """What a network says about the window at a corner of pictures.

    Attributes:
        corner: the upper left pixel.
        logits: (B, h, w, K), as large as the window or smaller; of N windows in a row, (N, ...).
        index: which of N windows of single pictures it is.
    """

    corner: tuple[int, int]
    logits: jax.Array
    index: int | None = None


class Layout(NamedTuple):
    """How windows lie on pictures.

    Attributes:
        shape: height and width of the pictures.
        side: those of the windows, to which smaller logits are interpolated.
        align_corners: of that interpolation.
        sharding: where the sums of the logits are kept; None: on JAX's usual device.
    """

    shape: Size
    side: Size
    align_corners: bool = False
    sharding: jax.sharding.Sharding | None = None


def windowed(look: Look, images: jax.Array, windows: Windows) -> jax.Array:
    """The logits of pictures as the mean of those of all windows that see a pixel.

    Not to be called inside `jax.jit`: every window runs the same compiled program, whatever the
    size of the pictures.

    Args:
        look: compiled network, images (B, h, w, 3) -> logits (B, h, w, K).
        images: (B, H, W, 3); the batch may be split over devices.
        windows: where to look.

    Returns:
        (B, H, W, K) float32.
    """
    return mean_of(_looked(look, images, windows), _layout(images, windows))


def windowed_strips(
    look: Look,
    images: jax.Array,
    windows: Windows,
    read: Callable[[jax.Array, np.ndarray], jax.Array],
) -> np.ndarray:
    """What is read off the logits of each pixel, without holding those of all pixels.

    Args:
        look: as for `windowed`, and so are the other arguments.
        images: (B, H, W, 3).
        windows: where to look.
        read: see `strips_of`.

    Returns:
        (B, H, W, ...), on the host.
    """
    return strips_of(_looked(look, images, windows), _layout(images, windows), read)


def _layout(images: jax.Array, windows: Windows) -> Layout:
    shape = (images.shape[1], images.shape[2])
    return Layout(shape, windows.within(shape), sharding=images.sharding)


def _looked(look: Look, images: jax.Array, windows: Windows) -> Iterator[Found]:
    layout = _layout(images, windows)
    for corner in windows.corners(layout.shape):
        yield Found(corner, look(_cut(images, np.array(corner, np.int32), layout.side)))


def mean_of(found: Iterable[Found], layout: Layout) -> jax.Array:
    """The mean of the logits of all windows that see a pixel, (B, H, W, K) float32.

    Args:
        found: the windows, in the order of `Windows.corners`.
        layout: where they lie.
    """
    strip = _Strip(layout, layout.shape[0])
    for window in found:
        strip.add(window)
    return _divide(*strip.sums)


def strips_of(
    found: Iterable[Found],
    layout: Layout,
    read: Callable[[jax.Array, np.ndarray], jax.Array],
) -> np.ndarray:
    """What is read off the logits of each pixel, without holding those of all pixels.

    The pictures are gone through from top to bottom in strips as high as a window. The numbers are
    those of `mean_of`, bit for bit.

    Args:
        found: as for `mean_of`.
        layout: likewise.
        read: compiled, (sums of logits (B, h, W, K), number of windows that see a pixel (h, W, 1))
            -> values (B, h, W, ...), each of its own pixel alone.

    Returns:
        (B, H, W, ...), on the host.
    """
    strip = _Strip(layout, layout.side[0])
    values = []
    for window in found:
        done = window.corner[0] - strip.top
        if done:
            values.append(np.asarray(read(*strip.sums))[:, :done].copy())
            strip.move(done)
        strip.add(window)
    return np.concatenate([*values, np.asarray(read(*strip.sums))], axis=1)


class _Strip:
    """Sums of the logits of rows of pictures, through windows of one size."""

    def __init__(self, layout: Layout, height: int):
        self.top = 0
        self._layout = layout
        self._total: jax.Array | None = None
        self._seen = np.zeros((height, layout.shape[1], 1), np.float32)

    @property
    def sums(self) -> tuple[jax.Array, np.ndarray]:
        """Sums (B, h, W, K) float32, and by how many windows each pixel was seen, (h, W, 1)."""
        assert self._total is not None  # there is at least one window
        # A copy, as a program may still have to read it when the next windows are counted.
        return self._total, self._seen.copy()

    def add(self, window: Found) -> None:
        """Adds the logits of a window."""
        logits, (height, width) = window.logits, self._layout.side
        row, column = window.corner[0] - self.top, window.corner[1]
        if self._total is None:
            batch = len(logits) if window.index is None else 1
            shape = (batch, *self._seen.shape[:2], logits.shape[-1])
            self._total = jnp.zeros(shape, jnp.float32, device=self._layout.sharding)
        corner = np.array((row, column), np.int32)
        index = None if window.index is None else np.int32(window.index)
        how = (self._layout.side, self._layout.align_corners)
        self._total = _add(self._total, logits, index, corner, *how)
        self._seen[row : row + height, column : column + width] += 1

    def move(self, rows: int) -> None:
        """Leaves the uppermost rows behind."""
        self.top += rows
        self._total = _move(self._total, np.int32(rows))
        self._seen = np.concatenate((self._seen[rows:], np.zeros_like(self._seen[:rows])))


@functools.partial(jax.jit, static_argnums=2)
def _cut(images: jax.Array, corner: jax.Array, size: Size) -> jax.Array:
    batch, channels = images.shape[0], images.shape[-1]
    return jax.lax.dynamic_slice(images, (0, *corner, 0), (batch, *size, channels))


@functools.partial(jax.jit, donate_argnums=0, static_argnums=(4, 5))
def _add(
    total: jax.Array,
    logits: jax.Array,
    index: jax.Array | None,
    corner: jax.Array,
    side: Size,
    align_corners: bool,
) -> jax.Array:
    place = (0, *corner, 0)
    if index is not None:
        logits = jax.lax.dynamic_slice_in_dim(logits, index, 1)
    if logits.shape[1:3] != side:  # one window at a time, as many at this size would be large
        logits = resize_bilinear(logits, side, align_corners=align_corners)
    sofar = jax.lax.dynamic_slice(total, place, logits.shape)
    return jax.lax.dynamic_update_slice(total, sofar + logits.astype(total.dtype), place)


@functools.partial(jax.jit, donate_argnums=0)
def _move(total: jax.Array, rows: jax.Array) -> jax.Array:
    """Everything `rows` rows up, zeros below; row by row, as in one go it needs a second copy."""
    height = total.shape[1]

    def fill(row: jax.Array, moved: jax.Array) -> jax.Array:
        below = jax.lax.dynamic_slice_in_dim(moved, row + rows, 1, axis=1)
        below = jnp.where(row + rows < height, below, 0)
        return jax.lax.dynamic_update_slice_in_dim(moved, below, row, axis=1)

    return jax.lax.fori_loop(0, height, fill, total)


@functools.partial(jax.jit, donate_argnums=0)
def _divide(total: jax.Array, seen: jax.Array) -> jax.Array:
    return total / seen
