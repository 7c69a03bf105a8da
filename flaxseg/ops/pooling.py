"""Max and average pooling over (B, H, W, C) with torch's border rules."""

from collections.abc import Iterator
from typing import Any

import jax
from jax import numpy as jnp

from flaxseg.ops import canvas


def max_pool(
    x: jax.Array, kernel_size: int, stride: int, padding: int = 0, *, ceil_mode: bool = False
) -> jax.Array:
    """Maximum over square windows; padding counts as -inf.

    With `ceil_mode` a last window may hang over the right or bottom edge, if it starts inside.
    Where several values of a window are equal, the gradient goes to the first, as in torch.
    """
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    # Slices instead of lax.reduce_window, whose gradient (select-and-scatter) is slow on CPUs.
    slices = _window_slices(x, kernel_size, stride, padding, ceil_mode, lowest)
    result = next(slices)
    for candidate in slices:
        # The comparison spreads NaN and keeps the first of equals, unlike jnp.maximum's gradient.
        result = jnp.where((candidate > result) | jnp.isnan(candidate), candidate, result)
    return canvas.blank(result)  # where no window saw a picture, there is nothing finite


def avg_pool(x: jax.Array, kernel_size: int, stride: int, padding: int = 0) -> jax.Array:
    """Mean over square windows; padded zeros count, so that borders divide by the full window."""
    slices = _window_slices(x, kernel_size, stride, padding, False, 0)
    return sum(slices, start=jnp.zeros((), x.dtype)) / kernel_size**2


def spatial_mean(x: jax.Array) -> jax.Array:
    """Mean over the map, (B, 1, 1, C)."""
    shown = canvas.shown((x.shape[1], x.shape[2]))
    where = None if shown is None else shown[..., None]
    return x.mean((1, 2), keepdims=True, where=where)


def pooled_size(n: Any, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> Any:
    """Windows along a side of n pixels, a number or an array of them."""
    span = n + 2 * padding - kernel_size
    windows = (-(-span // stride) if ceil_mode else span // stride) + 1
    starts_in_padding = (windows - 1) * stride >= n + padding
    return windows - (ceil_mode & starts_in_padding)


def _window_slices(
    x: jax.Array, kernel_size: int, stride: int, padding: int, ceil_mode: bool, fill: float
) -> Iterator[jax.Array]:
    """For every place of the window, row by row, the strided slice of the padded x under it."""
    x = canvas.blank(x, fill)
    canvas.follow(x.shape[1:3], lambda n: pooled_size(n, kernel_size, stride, padding, ceil_mode))
    sides = [pooled_size(n, kernel_size, stride, padding, ceil_mode) for n in x.shape[1:3]]
    reach = [(side - 1) * stride + kernel_size for side in sides]
    after = [max(0, r - n - padding) for r, n in zip(reach, x.shape[1:3], strict=True)]
    widths = [(0, 0), (padding, after[0]), (padding, after[1]), (0, 0)]
    padded = jnp.pad(x, widths, constant_values=fill)
    for row in range(kernel_size):
        for col in range(kernel_size):
            bottom, right = row + (sides[0] - 1) * stride + 1, col + (sides[1] - 1) * stride + 1
            yield padded[:, row:bottom:stride, col:right:stride]
