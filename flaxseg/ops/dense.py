"""Convolution of all channels with all.

- On a CPU the gradient of the weight is a matrix product for each tap of the kernel, over all
  outputs; of few channels, or of a map that no cache holds, it is one over the pixels that each
  output reads, or that read each pixel, of some rows at a time. XLA's own is a convolution whose
  kernel is as large as the map, between transposed copies. The gradient of the map, where the
  kernel moves by strides, is made of a small convolution for every phase of the strides. XLA's own
  spreads the outputs with zeros in between and multiplies those, too. 3x3 kernels of many channels
  that move pixel by pixel go by Winograd's algorithm.
- A TPU lays the channels of a map out in rows of 128, so that XLA pads the three of an image to
  that many before it multiplies, and most of all for the gradient of the weight. There, where the
  kernel moves by strides, every block of stride x stride pixels becomes one pixel with all their
  channels, and the kernel likewise, which takes a few more multiplications by 0. An NVIDIA GPU
  gains two to four times by that, too; on a CPU the blocks lose.
- On an NVIDIA GPU the gradient of a dilated weight is that of a plain kernel on the maps of every
  dilation-th pixel. XLA's own is a convolution whose kernel is as large as the map, which takes ten
  times as long.
- All else is XLA's own convolution.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from flaxseg.ops.forms import Form, convolved, in_turn
from flaxseg.ops.precision import current_precision
from flaxseg.ops.window import Window, pad
from flaxseg.ops.winograd import winograd_conv

FEW = 8
"""Channels of a map that are so few that its pixels are gathered in blocks, on a TPU, and that its
gradient is left to XLA, on a CPU."""

PATCHES = 500_000
"""Values that the outputs of a part read together: they stay in the caches of a CPU."""

WIDE = 512
"""Channels, in and out, from which on Winograd's algorithm wins on a CPU."""

LEAST = 512
"""Outputs of a part at least: each part passes over the whole gradient of the weight."""

MANY = 128
"""Channels from which on a CPU multiplies tap by tap: gathering would cost more."""

CACHED = 2_000_000
"""Values of a map that nine taps read from a CPU's caches. A larger one is gathered in parts, but
for `WIDE` channels, whose products take so long that reading it does not matter."""


def dense_conv(x: jax.Array, weight: jax.Array, window: Window) -> jax.Array:
    """Convolves x, (B, H, W, C), with `weight`, (k, k, C, D), to (B, H', W', D).

    Args:
        x: the map.
        weight: the kernel.
        window: stride, zero padding and dilation.
    """
    return convolved(_forms(window, current_precision(), x.shape[-1]), x, weight)


def pointwise_conv(x: jax.Array, weight: jax.Array) -> jax.Array:
    """x, (B, H, W, C), times `weight`, (C, D), at each pixel: (B, H, W, D).

    XLA:CPU runs a 1x1 convolution at half the speed of the same product of matrices, and where that
    sums over an axis of a map it copies maps whose batch is 1.
    """
    precision = current_precision()
    on_cpu, elsewhere = (functools.partial(f, precision) for f in (_of_pixels, _of_maps))
    return convolved({"cpu": Form.of(on_cpu), "default": Form.of(elsewhere)}, x, weight)


def _of_pixels(precision: str | None, x: jax.Array, weight: jax.Array) -> jax.Array:
    y = lax.dot(x.reshape(-1, x.shape[-1]), weight, precision=precision)
    return y.reshape(*x.shape[:-1], -1)


def _of_maps(precision: str | None, x: jax.Array, weight: jax.Array) -> jax.Array:
    return lax.dot_general(x, weight, (((3,), (0,)), ((), ())), precision=precision)


def _forms(window: Window, precision: str | None, channels: int) -> dict[str, Form]:
    library = Form.of(functools.partial(_plain, window, precision))
    on_cpu = functools.partial(_on_cpu, window, precision)
    gradients = in_turn(functools.partial(_cpu_gradients, window, precision))
    forms = {"cpu": Form(on_cpu, gradients)}
    if channels <= FEW and window.stride > 1 == window.dilation:
        blocks = Form.of(functools.partial(_in_blocks, window, precision))
        forms |= {"tpu": blocks, "cuda": blocks}
    if window.dilation > 1 == window.stride:
        on_grids = functools.partial(_gradients_on_grids, window, precision)
        forms["cuda"] = Form(library.forward, on_grids)
    return forms | {"default": library}


def _plain(window: Window, precision: str | None, x: jax.Array, weight: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        weight,
        window_strides=(window.stride,) * 2,
        padding=[(window.padding, window.padding)] * 2,
        rhs_dilation=(window.dilation,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def _on_cpu(window: Window, precision: str | None, x: jax.Array, weight: jax.Array) -> jax.Array:
    if _by_winograd(window, weight):
        return winograd_conv(x, weight, window.padding, precision)
    return _plain(window, precision, x, weight)


def _by_winograd(window: Window, weight: jax.Array) -> bool:
    wide = min(weight.shape[2:]) >= WIDE and weight.dtype != jnp.bfloat16
    usual = len(weight) == 3 and window.padding <= 2
    return wide and usual and window.stride == window.dilation == 1


def _cpu_gradients(
    window: Window, precision: str | None, x: jax.Array, weight: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    if _by_winograd(window, weight):
        around = 2 - window.padding
        of_map = winograd_conv(cotangent, weight, around, precision, backwards=True)
    elif window.stride > 1 == window.dilation and x.shape[-1] > FEW:
        of_map = _by_phases(window, precision, (x.shape[1], x.shape[2]), weight, cotangent)
    else:
        back = jax.linear_transpose(lambda x: _plain(window, precision, x, weight), x)
        (of_map,) = back(cotangent)
    return of_map, _cpu_gradient_of_weight(window, precision, x, weight, cotangent)


def _cpu_gradient_of_weight(
    window: Window, precision: str | None, x: jax.Array, weight: jax.Array, cotangent: jax.Array
) -> jax.Array:
    k, _, channels, outputs = weight.shape
    reach = window.dilation * (k - 1)
    # Pixel by pixel the outputs read the map as the map reads them, so that the fewer channels of
    # both may be gathered.
    swaps = window.stride == 1 and outputs < channels and window.padding <= reach
    near = x.size <= CACHED or channels >= WIDE
    if k > 1 and near and (outputs if swaps else channels) >= MANY:
        return _of_taps(window, precision, x, weight, cotangent)
    if k > 1 and swaps:
        back = Window(1, reach - window.padding, window.dilation)
        turned = _of_patches(back, precision, cotangent, weight.swapaxes(2, 3), x)
        return turned[::-1, ::-1].swapaxes(2, 3)
    return _of_patches(window, precision, x, weight, cotangent)


def _by_phases(
    window: Window,
    precision: str | None,
    size: tuple[int, int],
    weight: jax.Array,
    cotangent: jax.Array,
) -> jax.Array:
    """The gradient of the map, (B, *size, C).

    The pixels of the padded map at stride * q + phase are read by the taps of the same phase alone:
    by tap stride * t + phase for the output at q - t.
    """
    stride, k = window.stride, len(weight)
    B, H, W, _ = cotangent.shape
    more = (k - 1) // stride

    def phase(row: int, col: int) -> jax.Array:
        taps = weight[row::stride, col::stride]
        if not taps.size:
            return jnp.zeros((B, H + more, W + more, weight.shape[2]), cotangent.dtype)
        return lax.conv_general_dilated(
            cotangent,
            taps[::-1, ::-1],
            window_strides=(1, 1),
            padding=[(n - 1, more) for n in taps.shape[:2]],
            dimension_numbers=("NHWC", "HWOI", "NHWC"),
            precision=precision,
        )

    return window.from_phases(phase, size)


def _of_taps(
    window: Window, precision: str | None, x: jax.Array, weight: jax.Array, cotangent: jax.Array
) -> jax.Array:
    """The gradient of the weight, of one tap after the other.

    What is summed over lies last on the left and first on the right: only so does XLA:CPU take its
    fastest product. One side is turned for that once, outside of the loop, where no pass makes the
    turn a part of the product again: the outputs', and then the result, or the map.
    """
    k, _, channels, outputs = weight.shape
    B, H, W, _ = cotangent.shape
    wide = jnp.promote_types(x.dtype, jnp.float32)
    multiply = functools.partial(lax.dot, precision=precision, preferred_element_type=wide)
    padded, gradient = pad(x, window.padding), cotangent.reshape(-1, outputs)
    if channels >= 4 * outputs:
        turned = padded.transpose(3, 0, 1, 2)

        def product(number: Any) -> jax.Array:
            return multiply(
                window.tap(turned, number, k, H, W, axis=2).reshape(channels, -1), gradient
            )

        total = _for_each_tap(product, k, jax.ShapeDtypeStruct((channels, outputs), wide))
        return total.reshape(weight.shape).astype(weight.dtype)
    left = gradient.T

    def product_of_turned(number: Any) -> jax.Array:
        return multiply(left, window.tap(padded, number, k, H, W).reshape(-1, channels))

    total = _for_each_tap(product_of_turned, k, jax.ShapeDtypeStruct((outputs, channels), wide))
    return total.swapaxes(1, 2).reshape(weight.shape).astype(weight.dtype)


def _for_each_tap(
    product: Callable[[Any], jax.Array], k: int, one: jax.ShapeDtypeStruct
) -> jax.Array:
    """The products of all taps of a k x k kernel, each like `one`, behind each other."""

    def add(number: jax.Array, total: jax.Array) -> jax.Array:
        return lax.dynamic_update_slice_in_dim(total, product(number)[None], number, 0)

    return lax.fori_loop(0, k * k, add, jnp.zeros((k * k, *one.shape), one.dtype))


def _of_patches(
    window: Window, precision: str | None, x: jax.Array, weight: jax.Array, cotangent: jax.Array
) -> jax.Array:
    """The gradient of the weight, of all taps together."""
    k, _, channels, outputs = weight.shape
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def read(tap: Callable[[Any], jax.Array], cotangent: jax.Array) -> jax.Array:
        def beside(number: jax.Array, patches: jax.Array) -> jax.Array:
            return lax.dynamic_update_slice_in_dim(patches, tap(number), number * channels, 3)

        patches = tap(0)
        if k > 1:
            patches = jnp.zeros((*patches.shape[:3], k * k * channels), patches.dtype)
            patches = lax.fori_loop(0, k * k, beside, patches)
        # What is summed over lies last on the left: only so does XLA:CPU call its library.
        left = cotangent.reshape(-1, outputs).T
        patches = patches.reshape(-1, k * k * channels)
        return lax.dot(left, patches, precision=precision, preferred_element_type=wide)

    pixels = max(LEAST, PATCHES // (k * k * channels))
    total = window.sum_over_rows(x, cotangent, k, pixels, read, (outputs, k * k * channels))
    return total.T.reshape(weight.shape).astype(weight.dtype)


def _gradients_on_grids(
    window: Window, precision: str | None, x: jax.Array, weight: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The gradient of the weight by the maps of every dilation-th pixel, side by side in a batch.

    An output reads pixels of one of these maps alone, through a kernel without dilation.
    """
    padding, reach = window.padding, len(weight) - 1
    sides = [-(-(n + 2 * padding) // window.dilation) for n in x.shape[1:3]]
    grids = _split(x, window.dilation, padding, sides)
    below = _split(cotangent, window.dilation, 0, [side - reach for side in sides])
    plain = functools.partial(_plain, Window(), precision, grids)
    (of_weight,) = jax.linear_transpose(plain, weight)(below)
    back = jax.linear_transpose(lambda x: _plain(window, precision, x, weight), x)
    return *back(cotangent), of_weight


def _split(x: jax.Array, times: int, padding: int, sides: list[int]) -> jax.Array:
    """Every times-th pixel as a map, (times * times * B, *sides, C), of x with zeros around it."""
    B, C = x.shape[0], x.shape[-1]
    ends = [
        (padding, times * side - n - padding) for n, side in zip(x.shape[1:3], sides, strict=True)
    ]
    x = jnp.pad(x, ((0, 0), *ends, (0, 0)))
    x = x.reshape(B, sides[0], times, sides[1], times, C)
    return x.transpose(2, 4, 0, 1, 3, 5).reshape(-1, *sides, C)


def _in_blocks(window: Window, precision: str | None, x: jax.Array, weight: jax.Array) -> jax.Array:
    stride, padding, _ = window
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
    return _plain(Window(), precision, x, weight)
