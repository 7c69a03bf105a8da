"""Interpolation of (B, H, W, C) maps with torch's coordinate rules, at any size up and down.

`jax.image.resize` has no align_corners=True, low-pass filters when it shrinks, and its gather
has a slow gradient; the two forms here are matrix products, or sums of shifted copies.
"""

import jax
import numpy as np
from jax import numpy as jnp

from flaxseg.ops.precision import EXACT


def resize_bilinear(
    x: jax.Array, size: tuple[int, int], *, align_corners: bool = False
) -> jax.Array:
    """Bilinear interpolation of x, (B, H, W, C), to (B, *size, C).

    A source coordinate is (dst + 0.5) * in / out - 0.5, clamped to the map, or with
    `align_corners` dst * (in - 1) / (out - 1). No smoothing when shrinking. Computed in float32 or
    wider whatever x is, as 8 bits of a weight would move pixels; the result has x's dtype.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = _resize_axis(wide, 2, size[1], align_corners)
    return _resize_axis(wide, 1, size[0], align_corners).astype(x.dtype)


def resize_nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resize of x, (B, H, W, ...), to (B, *size, ...) by repeating pixel floor(dst * in / out)."""
    rows, cols = (nearest_indices(n, out) for n, out in zip(x.shape[1:3], size, strict=True))
    return x[:, rows][:, :, cols]


def _resize_axis(x: jax.Array, axis: int, out: int, align_corners: bool) -> jax.Array:
    n = x.shape[axis]
    if out == n:
        return x
    if out % n == 0 and not align_corners:
        return _upsample_phases(x, axis, out // n)
    matrix = interpolation_matrix(n, out, align_corners).astype(x.dtype)
    # The matrix stands on the left and the channels stay last: no transposed copy of the map.
    lead, tail = x.shape[:axis], x.shape[axis + 1 :]
    stacked = x.reshape(int(np.prod(lead)), n, int(np.prod(tail)))
    y = jnp.einsum("on,bnc->boc", matrix, stacked, precision=EXACT)
    return y.reshape(*lead, out, *tail)


def _upsample_phases(x: jax.Array, axis: int, factor: int) -> jax.Array:
    """Enlarges by a whole factor: output k*factor + p mixes x[k] with one neighbour, by p alone."""
    before, after = _shifted(x, axis, -1), _shifted(x, axis, 1)
    phases = []
    for p in range(factor):
        offset = (p + 0.5) / factor - 0.5
        neighbour = before if offset < 0 else after
        phases.append(x + (neighbour - x) * abs(offset))
    stacked = jnp.stack(phases, axis + 1)
    return stacked.reshape(*x.shape[:axis], factor * x.shape[axis], *x.shape[axis + 1 :])


def _shifted(x: jax.Array, axis: int, step: int) -> jax.Array:
    """x[i + step] along the axis, the border repeated."""
    n = x.shape[axis]
    first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
    last = jax.lax.slice_in_dim(x, n - 1, n, axis=axis)
    if step < 0:
        return jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis)
    return jnp.concatenate([jax.lax.slice_in_dim(x, 1, n, axis=axis), last], axis)


def interpolation_matrix(n: int, out: int, align_corners: bool) -> np.ndarray:
    """The (out, n) matrix of linear interpolation along one axis, float64."""
    target = np.arange(out)
    if align_corners:
        source = target * ((n - 1) / (out - 1) if out > 1 else 0.0)
    else:
        source = np.maximum((target + 0.5) * (n / out) - 0.5, 0.0)
    lower = np.minimum(np.floor(source).astype(int), n - 1)
    upper = np.minimum(lower + 1, n - 1)
    fraction = source - lower
    matrix = np.zeros((out, n))
    np.add.at(matrix, (target, lower), 1 - fraction)
    np.add.at(matrix, (target, upper), fraction)
    return matrix


def nearest_indices(n: int, out: int) -> np.ndarray:
    """The source pixel of each of `out` pixels on a side of n."""
    # torch multiplies by a float32 scale, which decides the ties that exact arithmetic would not.
    scale = np.float32(n) / np.float32(out)
    return np.minimum(np.floor(np.arange(out, dtype=np.float32) * scale).astype(int), n - 1)
