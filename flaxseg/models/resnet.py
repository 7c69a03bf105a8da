"""ResNet encoder with dilated stages.

He et al. 2015, "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385,
with the stride in the 3x3 convolution (ResNet-B) and, for a stem of three 3x3 convolutions, the
ResNet-C of https://arxiv.org/abs/1812.01187. Shapes are those of torchvision's checkpoints.
"""

import dataclasses
from typing import Literal

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg import ops
from flaxseg.models.blocks import ConvBN, checkpointed, require
from flaxseg.ops import initializers as init

EXPANSION = 4
"""Output channels of a bottleneck over those of its 3x3 convolution."""

CONV_INITS = {"kaiming": init.kaiming_normal_fan_out, "torch": init.torch_default}


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """Depth, width and dilation of a bottleneck ResNet.

    Attributes:
        blocks: bottlenecks of each stage.
        width: channels of the first stage's 3x3 convolutions; every stage doubles them.
        stem_channels: one 7x7 convolution, or several 3x3; the first has stride 2.
        ceil_pool: the max pooling after the stem rounds sides up: one row or column more at some
            sizes.
        strides: stride of each stage's first block.
        dilations: dilation of each stage's 3x3 convolutions.
        first_dilations: the same of each stage's first block.
        conv_init: "kaiming" draws convolutions with He's rule, "torch" with torch's default.
        zero_init_residual: start the last norm of every block at 0.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    stem_channels: tuple[int, ...] = (64,)
    ceil_pool: bool = False
    strides: tuple[int, ...] = (1, 2, 2, 2)
    dilations: tuple[int, ...] = (1, 1, 1, 1)
    first_dilations: tuple[int, ...] = (1, 1, 1, 1)
    conv_init: Literal["kaiming", "torch"] = "kaiming"
    zero_init_residual: bool = False

    def __post_init__(self):
        per_stage = {
            "blocks": self.blocks,
            "strides": self.strides,
            "dilations": self.dilations,
            "first_dilations": self.first_dilations,
        }
        for name, values in per_stage.items():
            require(len(values) == len(self.blocks), name, values, "one value a stage, as blocks")
            require(min(values, default=0) >= 1, name, values, "whole numbers from 1 on")
        stem = self.stem_channels
        require(min(stem, default=0) >= 1, "stem_channels", stem, "whole numbers from 1 on")
        require(self.width >= 1, "width", self.width, "at least 1")

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of every stage's output."""
        return tuple(EXPANSION * self.width * 2**stage for stage in range(len(self.blocks)))


class Downsample(nnx.Module):
    """Shortcut of a block that changes stride or channels: 1x1 convolution and norm."""

    norm_pairs = (("conv", "bn"),)

    def __init__(self, in_channels: int, out_channels: int, stride: int, **kwargs):
        self.conv = _conv(in_channels, out_channels, 1, stride=stride, **kwargs)
        self.bn = _norm(out_channels, **kwargs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, in), to (B, H / stride, W / stride, out)."""
        return self.bn(self.conv(x))


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions with norms, added to the shortcut."""

    norm_pairs = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int,
        dilation: int,
        downsample: bool,
        zero_init_residual: bool,
        **kwargs,
    ):
        out_channels = EXPANSION * width
        self.conv1 = _conv(in_channels, width, 1, **kwargs)
        self.bn1 = _norm(width, **kwargs)
        self.conv2 = _conv(width, width, 3, stride=stride, dilation=dilation, **kwargs)
        self.bn2 = _norm(width, **kwargs)
        self.conv3 = _conv(width, out_channels, 1, **kwargs)
        self.bn3 = _norm(out_channels, **kwargs)
        if zero_init_residual:
            self.bn3.weight.set_value(jnp.zeros_like(self.bn3.weight[...]))
        self.downsample = nnx.data(
            Downsample(in_channels, out_channels, stride, **kwargs) if downsample else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, in), to (B, H / stride, W / stride, 4 * width)."""
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = jax.nn.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return jax.nn.relu(y + shortcut)


class Stage(nnx.Module):
    """Bottlenecks of one width."""

    def __init__(
        self, config: ResNetConfig, index: int, in_channels: int, *, remat: bool, **kwargs
    ):
        self.remat = remat
        width = config.width * 2**index
        self.blocks = nnx.List(
            Bottleneck(
                in_channels if first else EXPANSION * width,
                width,
                stride=config.strides[index] if first else 1,
                dilation=(config.first_dilations if first else config.dilations)[index],
                downsample=first,
                zero_init_residual=config.zero_init_residual,
                **kwargs,
            )
            for first in (block == 0 for block in range(config.blocks[index]))
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Runs the blocks on x, (B, H, W, C)."""
        for block in self.blocks:
            x = checkpointed(self.remat, block, x)
        return x


class ResNet(nnx.Module):
    """The stem, a 3x3 max pooling with stride 2, and the stages; no classifier.

    `remat` keeps no activations inside the bottlenecks: the gradient computes them again. Running
    statistics are updated as without it.
    """

    def __init__(
        self,
        config: ResNetConfig,
        *,
        remat: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kwargs = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        kwargs["weight_init"] = CONV_INITS[config.conv_init]
        stem_kernel = 7 if len(config.stem_channels) == 1 else 3
        stem_inputs = (3, *config.stem_channels[:-1])
        self.stem = nnx.List(
            ConvBN(c_in, c_out, stem_kernel, stride=2 if i == 0 else 1, **kwargs)
            for i, (c_in, c_out) in enumerate(zip(stem_inputs, config.stem_channels, strict=True))
        )
        inputs = (config.stem_channels[-1], *config.out_channels)
        self.stages = nnx.List(
            Stage(config, i, inputs[i], remat=remat, **kwargs) for i in range(len(config.blocks))
        )
        self.ceil_pool = config.ceil_pool

    def __call__(self, images: jax.Array) -> tuple[jax.Array, ...]:
        """The output of every stage for images, (B, H, W, 3)."""
        x = images
        for layer in self.stem:
            x = layer(x)
        x = ops.max_pool(x, 3, 2, 1, ceil_mode=self.ceil_pool)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return tuple(outputs)


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, *, dilation: int = 1, **kwargs
) -> ops.Conv:
    return ops.Conv(
        in_channels,
        out_channels,
        kernel_size,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        bias=False,
        **kwargs,
    )


def _norm(channels: int, *, dtype: DTypeLike, param_dtype: DTypeLike, **_) -> ops.BatchNorm:
    return ops.BatchNorm(channels, dtype=dtype, param_dtype=param_dtype)
