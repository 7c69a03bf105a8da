"""Strided convolution of few channels, as of an image.

A TPU lays the channels of a map out in rows of 128, so that XLA pads the three of an image to that
many before it multiplies, and most of all for the gradient of the weight. There every block of
stride x stride pixels becomes one pixel with all their channels, and the kernel likewise, which
takes a few more multiplications by 0. Other devices keep XLA's own convolution: on a CPU the blocks
lose.
"""

import functools

import jax
from jax import lax
from jax import numpy as jnp

from flaxseg.ops.forms import Form, convolved
from flaxseg.ops.precision import current_precision

FEW = 8
"""Channels of a map up to which its pixels are gathered in blocks."""


def strided_conv(x: jax.Array, weight: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolves x, (B, H, W, C), with `weight`, (k, k, C, D), to (B, H', W', D).

    Args:
        x: a map of few channels.
        weight: the kernel.
        stride: at least 2, of both axes.
        padding: zeros on each side of both axes.
    """
    given = {"stride": stride, "padding": padding, "precision": current_precision()}
    forms = {
        "tpu": Form.of(functools.partial(_in_blocks, **given)),
        "default": Form.of(functools.partial(_plain, **given)),
    }
    return convolved(forms, x, weight)


def _plain(
    x: jax.Array, weight: jax.Array, *, stride: int, padding: int, precision: str | None
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        weight,
        window_strides=(stride, stride),
        padding=[(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def _in_blocks(
    x: jax.Array, weight: jax.Array, *, stride: int, padding: int, precision: str | None
) -> jax.Array:
    k, channels = len(weight), x.shape[-1]
    blocks = -(-k // stride)  # that a kernel lies in, along an axis
    outputs = [(side + 2 * padding - k) // stride + 1 for side in x.shape[1:3]]
    rows, cols = (n + blocks - 1 for n in outputs)

    def high(blocks: int, side: int) -> int:
        return blocks * stride - padding - side  # negative cuts off what no kernel reads

    sides = (padding, high(rows, x.shape[1]), 0), (padding, high(cols, x.shape[2]), 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
    x = x.reshape(-1, rows, stride, cols, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(-1, rows, cols, stride * stride * channels)
    more = (0, blocks * stride - k)
    weight = jnp.pad(weight, (more, more, (0, 0), (0, 0)))
    weight = weight.reshape(blocks, stride, blocks, stride, channels, -1)
    weight = weight.transpose(0, 2, 1, 3, 4, 5).reshape(*(blocks,) * 2, x.shape[-1], -1)
    return _plain(x, weight, stride=1, padding=0, precision=precision)
