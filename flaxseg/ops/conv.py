"""Convolution and linear layers with torch's arithmetic and parameter names."""

import math

import jax
from flax import nnx
from jax import lax
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg.ops import canvas
from flaxseg.ops import initializers as init
from flaxseg.ops.dense import dense_conv, pointwise_conv
from flaxseg.ops.depthwise import depthwise_conv
from flaxseg.ops.window import Window


class Conv(nnx.Module):
    """2-D convolution with explicit symmetric zero padding, on (B, H, W, C).

    The output side is floor((n + 2 * padding - dilation * (kernel_size - 1) - 1) / stride) + 1,
    as in torch's Conv2d. `weight` is (kernel, kernel, in / groups, out).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        weight_init: init.Initializer = init.torch_default,
        bias_init: init.Initializer | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.dtype = dtype
        shape = (kernel_size, kernel_size, in_channels // groups, out_channels)
        bias_init = bias_init or init.uniform(1 / math.sqrt(math.prod(shape[:3])))
        self.weight = nnx.Param(weight_init(rngs.params(), shape, param_dtype), layout="conv")
        self.bias = nnx.data(
            nnx.Param(bias_init(rngs.params(), (out_channels,), param_dtype)) if bias else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves x, (B, H, W, in), to (B, H', W', out) in the layer's dtype."""
        x = x.astype(self.dtype)
        if self.kernel_size > 1:
            x = canvas.blank(x)
        if self.kernel_size > 1 or self.stride > 1:
            canvas.follow(x.shape[1:3], lambda n: self._window.outputs(n, self.kernel_size))
        weight = self.weight[...].astype(self.dtype)
        pointwise = self.kernel_size == 1 and self.padding == 0 and self.groups == 1
        y = self._pointwise(x, weight) if pointwise else self._convolve(x, weight)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)

    @property
    def _window(self) -> Window:
        return Window(self.stride, self.padding, self.dilation)

    def _pointwise(self, x: jax.Array, weight: jax.Array) -> jax.Array:
        return pointwise_conv(x[:, :: self.stride, :: self.stride], weight[0, 0])

    def _convolve(self, x: jax.Array, weight: jax.Array) -> jax.Array:
        if self.groups == 1:
            return dense_conv(x, weight, self._window)
        if self.groups == x.shape[-1]:
            return depthwise_conv(x, weight, self._window)
        return lax.conv_general_dilated(
            x,
            weight,
            window_strides=(self.stride, self.stride),
            padding=[(self.padding, self.padding)] * 2,
            rhs_dilation=(self.dilation, self.dilation),
            feature_group_count=self.groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class Linear(nnx.Module):
    """y = x @ weight + bias over the last axis; `weight` is (in, out)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        weight_init: init.Initializer = init.torch_default,
        bias_init: init.Initializer | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        shape = (in_features, out_features)
        bias_init = bias_init or init.uniform(1 / math.sqrt(in_features))
        self.weight = nnx.Param(weight_init(rngs.params(), shape, param_dtype), layout="linear")
        self.bias = nnx.data(
            nnx.Param(bias_init(rngs.params(), (out_features,), param_dtype)) if bias else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (..., in), to (..., out) in the layer's dtype."""
        y = jnp.dot(x.astype(self.dtype), self.weight[...].astype(self.dtype))
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)
