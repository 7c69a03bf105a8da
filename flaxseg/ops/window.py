"""How a kernel moves over a map, and the pixels that it reads."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp


class Window(NamedTuple):
    """How a kernel moves over the map; each value holds for both axes."""

    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def outputs(self, side: Any, kernel_size: int) -> Any:
        """Places of the kernel along a side of the map, a number or an array of them."""
        span = side + 2 * self.padding - self.dilation * (kernel_size - 1) - 1
        return span // self.stride + 1

    def taps(
        self, padded: jax.Array, kernel_size: int, rows: int, cols: int
    ) -> Iterator[jax.Array]:
        """For each tap of the kernel, row by row, the pixels of the padded map that it reads.

        Args:
            padded: the map with its padding, (B, H, W, C).
            kernel_size: of each side.
            rows: places of the kernel, from the top of the padded map.
            cols: the same from its left.
        """
        stride, _, dilation = self
        for top in range(0, kernel_size * dilation, dilation):
            for left in range(0, kernel_size * dilation, dilation):
                bottom, right = top + stride * (rows - 1) + 1, left + stride * (cols - 1) + 1
                yield padded[:, top:bottom:stride, left:right:stride]

    def tap(
        self,
        padded: jax.Array,
        number: int | jax.Array,
        kernel_size: int,
        rows: int,
        cols: int,
        *,
        first: int | jax.Array = 0,
        axis: int = 1,
    ) -> jax.Array:
        """The pixels of the padded map that one tap reads, (B, rows, cols, C).

        Args:
            padded: the map with its padding, (B, H, W, C), or its axes in another order.
            number: of the tap, row by row; may be traced: a loop over it is compiled once, nine
                shifts are nine programs.
            kernel_size: of each side.
            rows: places of the kernel that count, below each other.
            cols: the same beside each other, from the left.
            first: row of the padded map where the uppermost place begins.
            axis: of the map's rows; that of its columns follows.
        """
        stride, _, dilation = self
        top, left = (dilation * n for n in divmod(number, kernel_size))
        starts: list[int | jax.Array] = [0] * padded.ndim
        sizes = list(padded.shape)
        starts[axis], starts[axis + 1] = first + top, left
        sizes[axis : axis + 2] = (stride * (n - 1) + 1 for n in (rows, cols))
        read = lax.dynamic_slice(padded, starts, sizes)
        return read[(slice(None),) * axis + (slice(None, None, stride),) * 2]

    def sum_over_rows(
        self,
        x: jax.Array,
        cotangent: jax.Array,
        kernel_size: int,
        pixels: int,
        read: Callable[[Callable[[Any], jax.Array], jax.Array], jax.Array],
        shape: tuple[int, ...],
    ) -> jax.Array:
        """The sum of what is read off some rows of outputs at a time.

        A kernel of k by k reads the map k * k times. If that is done row by row, all but the first
        reading find it in the cache.

        Args:
            x: the map, (B, H, W, C).
            cotangent: gradient of the outputs, (B, H', W', D).
            kernel_size: of each side.
            pixels: about as many outputs are read at a time, whole rows of them.
            read: (number of a tap -> the pixels that it reads, (B, rows, W', C); cotangent
                (B, rows, W', D)) -> what is summed; 0 where the cotangent is. Numbers may be
                traced: a loop over them is compiled once, nine shifts are nine programs.
            shape: of what is read, which is float32 or wider.
        """
        stride = self.stride
        B, H, W, _ = cotangent.shape
        parts = -(-H // min(H, max(1, pixels // (B * W))))
        rows = -(-H // parts)
        spare = parts * rows - H
        padded = pad(x, self.padding, below=spare * stride)
        cotangent = jnp.pad(cotangent, ((0, 0), (0, spare), (0, 0), (0, 0)))

        def part(number: int | jax.Array) -> jax.Array:
            def tap(index: Any) -> jax.Array:
                first = number * rows * stride
                return self.tap(padded, index, kernel_size, rows, W, first=first)

            return read(tap, lax.dynamic_slice_in_dim(cotangent, number * rows, rows, 1))

        if parts == 1:
            return part(0)
        zeros = jnp.zeros(shape, jnp.promote_types(x.dtype, jnp.float32))
        return lax.fori_loop(0, parts, lambda number, total: total + part(number), zeros)

    def from_phases(
        self, phase: Callable[[int, int], jax.Array], size: tuple[int, int]
    ) -> jax.Array:
        """A map, (B, *size, C), of which every stride-th pixel is made at a time.

        Args:
            phase: (row, column), from 0 to stride - 1 -> the pixels (B, h, w, C) of the padded map
                that lie there and every stride further. All of them are of one shape; what they
                leave out at the end of the map is 0.
            size: height and width of the map.
        """
        stride, padding, _ = self
        lines = []
        for row in range(stride):
            line = jnp.stack([phase(row, col) for col in range(stride)], 3)
            B, rows, cols, _, C = line.shape
            lines.append(line.reshape(B, rows, stride * cols, C))
        padded = jnp.stack(lines, 2).reshape(B, stride * rows, stride * cols, C)
        high, wide = (n + padding - m for n, m in zip(size, padded.shape[1:3], strict=True))
        crop = ((0, 0, 0), (-padding, high, 0), (-padding, wide, 0), (0, 0, 0))
        return lax.pad(padded, jnp.zeros((), padded.dtype), crop)


def pad(x: jax.Array, padding: int, *, below: int = 0) -> jax.Array:
    """x, (B, H, W, C), with zeros on all sides, and rows of them below."""
    return jnp.pad(x, ((0, 0), (padding, padding + below), (padding, padding), (0, 0)))
