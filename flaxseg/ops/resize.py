"""Interpolation of (B, H, W, C) maps with torch's coordinate rules, at any size up and down.

`jax.image.resize` has no align_corners=True, low-pass filters when it shrinks, and its gather
has a slow gradient; the two forms here are matrix products, or sums of shifted copies.

Sides may be symbolic, as in a program that is exported for pictures of any size: what is a constant
of a known side is then computed when the program runs.
"""

import functools
import math
from typing import Any

import jax
import numpy as np
from jax import export, lax
from jax import numpy as jnp

from flaxseg.ops import canvas
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
    before, after = canvas.reaches((x.shape[1], x.shape[2])), canvas.reaches(size)
    if before and after:
        if x.shape[1:3] == size:
            return x
        rows, cols = (
            interpolation_within(out, n, to, reach, align_corners, wide.dtype)
            for out, n, to, reach in zip(size, x.shape[1:3], after, before, strict=True)
        )
        return interpolated(wide, rows, cols).astype(x.dtype)
    wide = _resize_axis(wide, 2, size[1], align_corners)
    return _resize_axis(wide, 1, size[0], align_corners).astype(x.dtype)


def interpolated(x: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
    """x, (B, h, w, C), by matrices (B, H, h) and (B, W, w) for each sample: (B, H, W, C)."""
    x = jnp.einsum("bow,bhwc->bhoc", cols, x, precision=EXACT)
    return jnp.einsum("boh,bhwc->bowc", rows, x, precision=EXACT)


def resize_nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resize of x, (B, H, W, ...), to (B, *size, ...) by repeating pixel floor(dst * in / out)."""
    before, after = canvas.reaches((x.shape[1], x.shape[2])), canvas.reaches(size)
    if before and after:
        rows, cols = (_nearest_within(*sides) for sides in zip(size, before, after, strict=True))
        x = jnp.take_along_axis(x, rows[:, :, None, None], 1)
        return jnp.take_along_axis(x, cols[:, None, :, None], 2)
    rows, cols = (_nearest(n, out) for n, out in zip(x.shape[1:3], size, strict=True))
    return x[:, rows][:, :, cols]


def _resize_axis(x: jax.Array, axis: int, out: int, align_corners: bool) -> jax.Array:
    n = x.shape[axis]
    if out == n:
        return x
    if out % n == 0 and not align_corners:
        return _enlarged(x, axis, out // n)
    matrix = _matrix(n, out, align_corners, x.dtype)
    # The matrix stands on the left and the channels stay last: no transposed copy of the map.
    lead, tail = x.shape[:axis], x.shape[axis + 1 :]
    stacked = x.reshape(math.prod(lead), n, math.prod(tail))
    y = jnp.einsum("on,bnc->boc", matrix, stacked, precision=EXACT)
    return y.reshape(*lead, out, *tail)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _enlarged(x: jax.Array, axis: int, factor: int) -> jax.Array:
    """Enlarges by a whole factor: output k*factor + p mixes x[k] with one neighbour, by p alone."""
    forms = (functools.partial(form, axis=axis, factor=factor) for form in (_at_once, _by_phase))
    return lax.platform_dependent(x, **dict(zip(("cpu", "default"), forms, strict=True)))


def _at_once(x: jax.Array, axis: int, factor: int) -> jax.Array:
    """One expression for all p, which XLA:CPU makes a loop without branches.

    SegFormer's logits, 2 of 56²×150 to 224², leave the network in 16 instead of 27 ms. By libtpu's
    estimate it takes a TPU twice as long as the other form.
    """
    offsets = jnp.asarray(_offsets(factor), x.dtype).reshape(factor, *[1] * (x.ndim - 1 - axis))
    before, here, after = (
        jnp.expand_dims(y, axis + 1) for y in (_shifted(x, axis, -1), x, _shifted(x, axis, 1))
    )
    neighbour = jnp.where(offsets < 0, before, after)
    return _merged(here + (neighbour - here) * jnp.abs(offsets), axis)


def _by_phase(x: jax.Array, axis: int, factor: int) -> jax.Array:
    """Each p by itself. Its transpose is the best on every platform: a sum of strided maps."""
    before, after = _shifted(x, axis, -1), _shifted(x, axis, 1)
    phases = [
        x + ((before if offset < 0 else after) - x) * abs(offset) for offset in _offsets(factor)
    ]
    return _merged(jnp.stack(phases, axis + 1), axis)


def _offsets(factor: int) -> list[float]:
    """Where the outputs of one pixel lie, in pixels from its middle.

    Plain numbers, which leave an array's dtype as it is; NumPy's would widen it under x64.
    """
    return [(p + 0.5) / factor - 0.5 for p in range(factor)]


def _merged(x: jax.Array, axis: int) -> jax.Array:
    """An axis and the one behind it as one."""
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _enlarged_forward(x: jax.Array, axis: int, factor: int) -> tuple[jax.Array, jax.Array]:
    return _enlarged(x, axis, factor), x


def _enlarged_backward(
    axis: int, factor: int, x: jax.Array, gradient: jax.Array
) -> tuple[jax.Array]:
    # The map takes no part in a linear function's gradient but by its shape.
    return jax.linear_transpose(lambda x: _by_phase(x, axis, factor), x)(gradient)


_enlarged.defvjp(_enlarged_forward, _enlarged_backward)


def _shifted(x: jax.Array, axis: int, step: int) -> jax.Array:
    """x[i + step] along the axis, the border repeated."""
    n = x.shape[axis]
    first = lax.slice_in_dim(x, 0, 1, axis=axis)
    last = lax.slice_in_dim(x, n - 1, n, axis=axis)
    if step < 0:
        return jnp.concatenate([first, lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis)
    return jnp.concatenate([lax.slice_in_dim(x, 1, n, axis=axis), last], axis)


def _matrix(n: Any, out: Any, align_corners: bool, dtype: Any) -> Any:
    """The (out, n) matrix of linear interpolation along one axis."""
    if not _symbolic(n, out):
        return interpolation_matrix(n, out, align_corners).astype(dtype)
    whole = jnp.full(1, out), jnp.full(1, n)
    return interpolation_within(out, n, *whole, align_corners, dtype)[0]


def _symbolic(*sides: Any) -> bool:
    return any(map(export.is_symbolic_dim, sides))


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


def interpolation_within(
    out: int,
    n: int,
    out_reach: jax.Array,
    reach: jax.Array,
    align_corners: bool,
    dtype: Any,
    first: Any = 0,
) -> jax.Array:
    """Matrices from sides of n pixels, which pictures reach into, to sides of `out`, (B, out, n).

    Args:
        out: pixels of the new side.
        n: pixels of the side.
        out_reach: how many of the new pixels each picture takes, (B,), any integers from 1 on.
        reach: how many it takes of the n, (B,).
        align_corners: see `resize_bilinear`.
        dtype: of the matrices.
        first: of the new pixels, where they are a part of the new side.
    """
    reach, out_reach = reach[:, None], out_reach[:, None]
    target = first + jnp.arange(out)
    # Whole numbers as far as they go: in float32 a coordinate of a long side is coarse.
    if align_corners:
        above, below = target * (reach - 1), jnp.maximum(out_reach - 1, 1)
    else:
        above, below = jnp.maximum((2 * target + 1) * reach - out_reach, 0), 2 * out_reach
    lower = jnp.minimum(above // below, reach - 1)
    upper = jnp.minimum(lower + 1, reach - 1)
    fraction = ((above - lower * below).astype(dtype) / below.astype(dtype))[..., None]
    at_lower, at_upper = (jax.nn.one_hot(i, n, dtype=dtype) for i in (lower, upper))
    return (1 - fraction) * at_lower + fraction * at_upper


def _nearest_within(out: int, reach: jax.Array, out_reach: jax.Array) -> jax.Array:
    """`nearest_indices` of pictures that reach so far into sides of `out` pixels, (B, out)."""
    scale = (reach.astype(jnp.float32) / out_reach.astype(jnp.float32))[:, None]
    found = jnp.floor(jnp.arange(out, dtype=jnp.float32) * scale).astype(jnp.int32)
    return jnp.minimum(found, reach[:, None] - 1)


def _nearest(n: Any, out: Any) -> Any:
    """The source pixel of each of `out` pixels on a side of n."""
    if _symbolic(n, out):
        return _nearest_within(out, jnp.full(1, n), jnp.full(1, out))[0]
    return nearest_indices(n, out)


def nearest_indices(n: int, out: int) -> np.ndarray:
    """The source pixel of each of `out` pixels on a side of n."""
    # torch multiplies by a float32 scale, which decides the ties that exact arithmetic would not.
    scale = np.float32(n) / np.float32(out)
    return np.minimum(np.floor(np.arange(out, dtype=np.float32) * scale).astype(int), n - 1)
