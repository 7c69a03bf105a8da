"""Large pictures looked at through overlapping windows, mmsegmentation's mode "slide"."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from flaxseg.errors import ConfigError

Size = tuple[int, int]


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


def windowed(
    look: Callable[[jax.Array], jax.Array], images: jax.Array, windows: Windows
) -> jax.Array:
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
    shape = (images.shape[1], images.shape[2])
    side = windows.within(shape)
    seen = np.zeros((*shape, 1), np.float32)
    total: jax.Array | None = None
    for row, column in windows.corners(shape):
        corner = np.array((row, column), np.int32)
        logits = look(_cut(images, corner, side))
        if total is None:
            size = (*images.shape[:3], logits.shape[-1])
            total = jnp.zeros(size, jnp.float32, device=images.sharding)
        total = _add(total, logits, corner)
        seen[row : row + side[0], column : column + side[1]] += 1
    assert total is not None  # there is at least one window
    return _divide(total, seen)


@functools.partial(jax.jit, static_argnums=2)
def _cut(images: jax.Array, corner: jax.Array, size: Size) -> jax.Array:
    batch, channels = images.shape[0], images.shape[-1]
    return jax.lax.dynamic_slice(images, (0, *corner, 0), (batch, *size, channels))


@functools.partial(jax.jit, donate_argnums=0)
def _add(total: jax.Array, logits: jax.Array, corner: jax.Array) -> jax.Array:
    place = (0, *corner, 0)
    sofar = jax.lax.dynamic_slice(total, place, logits.shape)
    return jax.lax.dynamic_update_slice(total, sofar + logits.astype(total.dtype), place)


@functools.partial(jax.jit, donate_argnums=0)
def _divide(total: jax.Array, seen: jax.Array) -> jax.Array:
    return total / seen
