"""Convolution with 3x3 kernels by Winograd's minimal filtering, F(2x2, 3x3).

Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks",
https://arxiv.org/abs/1509.09308, section 4.1. Every 2 x 2 outputs read 4 x 4 pixels; in between lie
16 products of matrices instead of 36.
"""

from collections.abc import Callable, Sequence

import jax
from jax import lax
from jax import numpy as jnp

Grid = Sequence[Sequence[jax.Array]]
"""An array for each row and column of a small square."""


def winograd_conv(
    x: jax.Array, weight: jax.Array, padding: int, dilation: int, precision: str | None
) -> jax.Array:
    """Convolves x, (B, H, W, C), with `weight`, (3, 3, C, D), to (B, H', W', D).

    Args:
        x: the map, float32 or float64.
        weight: the kernel.
        padding: zeros on each side of both axes.
        dilation: pixels from one tap of the kernel to the next. Pixels that are so far apart make a
            map of their own, on which the kernel is a plain one.
        precision: of the products.
    """
    B, H, W, C = x.shape
    height, width = (n + 2 * padding - 2 * dilation for n in (H, W))
    # Twice as many as there are pairs of outputs of each of these maps, and 2 that they read more.
    rows, cols = (2 * -(-n // (2 * dilation)) + 2 for n in (height, width))
    high, wide = rows * dilation - padding - H, cols * dilation - padding - W
    # Negative where a last row or column is not read.
    sides = (0, 0, 0), (padding, high, 0), (padding, wide, 0), (0, 0, 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), sides)
    if dilation == 1:
        return _plain(x, weight, precision)[:, :height, :width]
    x = x.reshape(B, rows, dilation, cols, dilation, C).transpose(0, 2, 4, 1, 3, 5)
    y = _plain(x.reshape(-1, rows, cols, C), weight, precision)
    y = y.reshape(B, dilation, dilation, rows - 2, cols - 2, -1).transpose(0, 3, 1, 4, 2, 5)
    return y.reshape(B, (rows - 2) * dilation, (cols - 2) * dilation, -1)[:, :height, :width]


def _plain(x: jax.Array, weight: jax.Array, precision: str | None) -> jax.Array:
    """Without padding, (B, 2 h + 2, 2 w + 2, C) to (B, 2 h, 2 w, D)."""
    B, H, W, C = x.shape
    pixels = [[x[:, i : i + H - 3 : 2, j : j + W - 3 : 2] for j in range(4)] for i in range(4)]
    maps, kernels = _both(_of_pixels, pixels), _both(_of_taps, weight)
    # One after the other: as a batch of products they would have to be copied together.
    products = [
        [lax.dot(m.reshape(-1, C), k, precision=precision) for m, k in zip(*lines, strict=True)]
        for lines in zip(maps, kernels, strict=True)
    ]
    shape = B, H // 2 - 1, W // 2 - 1, weight.shape[-1]
    outputs = [[y.reshape(shape) for y in line] for line in _both(_to_outputs, products)]
    y = jnp.stack([jnp.stack(line, 3) for line in outputs], 2)
    return y.reshape(B, H - 2, W - 2, -1)


def _both(
    function: Callable[..., list[jax.Array]], grid: Grid | jax.Array
) -> list[list[jax.Array]]:
    """Applies a function to every column of a square and then to every row."""
    columns = [function(*column) for column in zip(*grid, strict=True)]
    return [function(*row) for row in zip(*columns, strict=True)]


def _of_pixels(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> list[jax.Array]:
    return [a - c, b + c, c - b, b - d]


def _of_taps(a: jax.Array, b: jax.Array, c: jax.Array) -> list[jax.Array]:
    return [a, (a + b + c) / 2, (a - b + c) / 2, c]


def _to_outputs(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> list[jax.Array]:
    return [a + b + c, b - c - d]
