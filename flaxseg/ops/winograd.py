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

TURNED = 3, 1, 2, 0
"""Where the kernel's parts are when it is turned around: those of the way forward serve again."""


def winograd_conv(
    x: jax.Array,
    weight: jax.Array,
    padding: int,
    precision: str | None,
    *,
    backwards: bool = False,
) -> jax.Array:
    """Convolves x, (B, H, W, C), with `weight`, (3, 3, C, D), to (B, H', W', D).

    Args:
        x: the map, float32 or float64.
        weight: the kernel, which moves pixel by pixel.
        padding: zeros on each side of both axes.
        precision: of the products.
        backwards: turns the kernel around, from its D outputs to its C inputs, as the gradient of
            the map needs it.
    """
    B, H, W, C = x.shape
    height, width = H + 2 * padding - 2, W + 2 * padding - 2
    rows, cols = -(-height // 2), -(-width // 2)  # of pairs of outputs
    sides = ((padding, 2 * n + 2 - padding - side, 0) for n, side in ((rows, H), (cols, W)))
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
    starts = range(4)
    pixels = [
        [x[:, i : i + 2 * rows - 1 : 2, j : j + 2 * cols - 1 : 2] for j in starts] for i in starts
    ]
    maps = _both(_of_pixels, pixels)
    kernels = _both(_of_taps, weight)
    if backwards:
        kernels = [[kernels[i][j] for j in TURNED] for i in TURNED]
    # Copying a kernel with its channels exchanged would cost what the algorithm gains.
    axes = (((1,), (1 if backwards else 0,)), ((), ()))

    def product(pixels: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.dot_general(pixels.reshape(-1, C), kernel, axes, precision=precision)

    # One after the other: as a batch of products they would have to be copied together.
    products = [
        [product(m, k) for m, k in zip(*lines, strict=True)]
        for lines in zip(maps, kernels, strict=True)
    ]
    outputs = [
        [y.reshape(B, rows, cols, -1) for y in line] for line in _both(_to_outputs, products)
    ]
    y = jnp.stack([jnp.stack(line, 3) for line in outputs], 2)
    return y.reshape(B, 2 * rows, 2 * cols, -1)[:, :height, :width]


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
