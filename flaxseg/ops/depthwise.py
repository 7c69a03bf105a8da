"""Depthwise convolution: every channel has kernels of its own.

XLA's CPU convolution takes fifty times as long for the depthwise case as torch does. There it is
written as a sum of shifted copies of the map, each times one weight a channel, and so are its
gradients. On TPUs, too, but for the gradient of the weight: libtpu expects less than half of the
time of its own convolution (docs/accelerators.md). GPUs keep XLA's, which calls cuDNN: on an H100
it is the faster one.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from flaxseg.ops.forms import Form, convolved, in_turn
from flaxseg.ops.precision import EXACT, current_precision
from flaxseg.ops.stored import stored
from flaxseg.ops.window import Window, pad

CHUNK = 100_000
"""Values of a piece of the map that stays in the cache while all weight gradients read it."""


def depthwise_conv(x: jax.Array, weight: jax.Array, window: Window) -> jax.Array:
    """Convolves x, (B, H, W, C), to (B, H', W', m * C).

    Args:
        x: the map.
        weight: (k, k, 1, m * C); output channel c * m + i reads input channel c alone.
        window: stride, zero padding and dilation.
    """
    return convolved(_forms(window, current_precision()), x, weight)


def _forms(window: Window, precision: str | None) -> dict[str, Form]:
    library = Form.of(functools.partial(_library_conv, window, precision))
    shifted = functools.partial(_shifted_conv, window)
    return {
        "cpu": Form(stored(shifted), in_turn(functools.partial(_shifted_gradients, window))),
        "tpu": Form(shifted, functools.partial(_mixed_gradients, window, library)),
        "default": library,
    }


def _library_conv(
    window: Window, precision: str | None, x: jax.Array, weight: jax.Array
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        weight,
        window_strides=(window.stride,) * 2,
        padding=[(window.padding, window.padding)] * 2,
        rhs_dilation=(window.dilation,) * 2,
        feature_group_count=x.shape[-1],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


# Traced once for each shape: `stored` asks for the shape of what it gives, and platforms share it.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _shifted_conv(window: Window, x: jax.Array, weight: jax.Array) -> jax.Array:
    k, times = len(weight), weight.shape[-1] // x.shape[-1]
    x = jnp.repeat(x, times, -1) if times > 1 else x
    rows, cols = (window.outputs(n, k) for n in x.shape[1:3])
    taps = window.taps(pad(x, window.padding), k, rows, cols)
    return _weighted_sum(taps, weight.reshape(k * k, -1))


def _shifted_gradients(
    window: Window, x: jax.Array, weight: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    times = weight.shape[-1] // x.shape[-1]
    repeated = jnp.repeat(x, times, -1) if times > 1 else x
    of_weight = _weight_gradient(window, cotangent, repeated, len(weight))
    of_map = stored(functools.partial(_map_gradient, window))(x, weight, cotangent)
    return of_map, of_weight[:, :, None].astype(weight.dtype)


def _mixed_gradients(
    window: Window, library: Form, x: jax.Array, weight: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    _, of_weight = library.gradients(x, weight, cotangent)
    return _map_gradient(window, x, weight, cotangent), of_weight


# Traced once, as above.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _map_gradient(
    window: Window, x: jax.Array, weight: jax.Array, cotangent: jax.Array
) -> jax.Array:
    times, size = weight.shape[-1] // x.shape[-1], (x.shape[1], x.shape[2])
    of_map = _input_gradient(window, cotangent, weight[:, :, 0], size)
    if times == 1:
        return of_map
    # A matrix of ones and zeros: plain sums of a few neighbouring channels are far slower.
    ones = jnp.repeat(jnp.eye(x.shape[-1], dtype=of_map.dtype), times, 0)
    return jnp.matmul(of_map, ones, precision=EXACT)


def _input_gradient(
    window: Window, cotangent: jax.Array, weight: jax.Array, size: tuple[int, int]
) -> jax.Array:
    """The gradient of the map, (B, *size, C).

    Output pixel i has read pixel stride * i + dilation * r of the padded map through tap r. Seen
    from that pixel, which is stride * q + phase, only the taps of its phase count, and they find
    their output at q - delay.
    """
    B, H, W, C = cotangent.shape
    delays = [divmod(window.dilation * r, window.stride) for r in range(len(weight))]
    longest = delays[-1][0]
    padded, rows, cols = pad(cotangent, longest), H + longest, W + longest

    def gather(row_phase: int, col_phase: int) -> jax.Array:
        taps = [
            (padded[:, longest - i :, longest - j :][:, :rows, :cols], weight[r, c])
            for r, (i, p) in enumerate(delays)
            for c, (j, q) in enumerate(delays)
            if (p, q) == (row_phase, col_phase)
        ]
        if not taps:
            return jnp.zeros((B, rows, cols, C), cotangent.dtype)
        return _weighted_sum(*zip(*taps, strict=True))

    return window.from_phases(gather, size)


def _weight_gradient(window: Window, cotangent: jax.Array, x: jax.Array, k: int) -> jax.Array:
    """The gradient of the weight, (k, k, C), float32 or wider."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)

    def read(tap: Callable[[Any], jax.Array], cotangent: jax.Array) -> jax.Array:
        def of_tap(number: jax.Array) -> jax.Array:
            return (tap(number) * cotangent).sum((0, 1, 2), dtype=dtype)

        return lax.map(of_tap, jnp.arange(k * k))

    total = window.sum_over_rows(x, cotangent, k, CHUNK // x.shape[-1], read, (k * k, x.shape[-1]))
    return total.reshape(k, k, -1)


def _weighted_sum(taps: Iterable[jax.Array], weights: Iterable[jax.Array]) -> jax.Array:
    """The sum of taps, (B, H, W, C), each times its weight, (C,)."""
    taps, weights = list(taps), list(weights)
    dtype = taps[0].dtype
    wide = jnp.promote_types(dtype, jnp.float32)
    products = (t.astype(wide) * w.astype(wide) for t, w in zip(taps, weights, strict=True))
    return functools.reduce(jnp.add, products).astype(dtype)
