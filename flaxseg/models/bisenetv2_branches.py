"""The two branches of BiSeNetV2: a wide and shallow one for detail, a narrow and deep one.

Yu et al. 2020, "BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic
Segmentation", https://arxiv.org/abs/2004.02147, sections 3 and 4.
"""

import dataclasses
from typing import Any, Literal

import jax
from flax import nnx
from jax import numpy as jnp

from flaxseg import ops
from flaxseg.models.blocks import ConvBN, checkpointed, require
from flaxseg.ops import initializers as init

DETAIL_STRIDE = 8
"""Image pixels for each pixel of the detail branch's map."""

SEMANTIC_STRIDE = 32
"""The same of the semantic branch."""

CONV_INITS: dict[str, dict[str, Any]] = {
    "torch": {"weight_init": init.torch_default},
    "kaiming": {"weight_init": init.kaiming_normal_fan_out, "bias_init": init.zeros},
}
"""Initialisers of weights and biases."""


@dataclasses.dataclass(frozen=True)
class BranchesConfig:
    """Widths, depths and blocks of the two branches.

    Attributes:
        detail_channels: of the detail branch's three stages; each halves the map.
        detail_layers: convolutions of each of these stages; the first has the stride.
        semantic_channels: of the semantic branch's stem, which quarters the map, and of its three
            stages, which halve it.
        semantic_layers: gather-and-expansion layers of each of these stages.
        expansion: inner over outer channels of a gather-and-expansion layer.
        separable: True follows every depthwise convolution but the expanding one with a 1x1
            convolution in front of the norm; in a gather-and-expansion layer one such pair stands
            behind the expansion, and one more, with the stride, where it has one. False leaves
            the 1x1 convolutions out; the expansion itself has the stride, and only then is
            followed by a depthwise convolution.
        conv_bias: convolutions in front of a norm have a bias, except in a gather-and-expansion
            layer the last one and, with a stride, the expanding one.
        context_norm: the context embedding normalises its input and both its convolutions, and
            ends with a ReLU; False leaves bare convolutions with biases.
        conv_init: "torch" keeps torch's defaults, "kaiming" draws with He's rule and starts
            biases at 0.
        zero_init_residual: start the last norm of every gather-and-expansion layer at 0.
    """

    detail_channels: tuple[int, ...] = (64, 64, 128)
    detail_layers: tuple[int, ...] = (2, 3, 3)
    semantic_channels: tuple[int, ...] = (16, 32, 64, 128)
    semantic_layers: tuple[int, ...] = (2, 2, 4)
    expansion: int = 6
    separable: bool = True
    conv_bias: bool = True
    context_norm: bool = False
    conv_init: Literal["torch", "kaiming"] = "torch"
    zero_init_residual: bool = False

    def __post_init__(self):
        for name, count in {
            "detail_channels": 3,
            "detail_layers": 3,
            "semantic_channels": 4,
            "semantic_layers": 3,
        }.items():
            values = getattr(self, name)
            fits = len(values) == count and min(values) >= 1
            require(fits, name, values, f"{count} whole numbers from 1 on")
        semantic = self.semantic_channels
        require(semantic[0] % 2 == 0, "semantic_channels", semantic, "an even first number")
        expected = f"{self.detail_channels[-1]} as last number, like detail_channels"
        fits = semantic[-1] == self.detail_channels[-1]
        require(fits, "semantic_channels", semantic, expected)
        require(self.expansion >= 1, "expansion", self.expansion, "at least 1")

    @property
    def out_channels(self) -> int:
        """Channels of both branches' last map."""
        return self.detail_channels[-1]


class SeparableConvBN(nnx.Module):
    """Depthwise 3x3 convolution, 1x1 convolution, batch normalisation; nothing in between."""

    norm_pairs = (("pointwise", "bn"),)

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, **kwargs):
        self.depthwise = ops.Conv(
            in_channels, in_channels, 3, stride=stride, padding=1, groups=in_channels, **kwargs
        )
        self.pointwise = ops.Conv(in_channels, out_channels, 1, **kwargs)
        self.bn = ops.BatchNorm(
            out_channels, dtype=kwargs["dtype"], param_dtype=kwargs["param_dtype"]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, in), to (B, H / stride, W / stride, out)."""
        return self.bn(self.pointwise(self.depthwise(x)))


def spatial_conv(
    config: BranchesConfig,
    channels: int,
    *,
    stride: int = 1,
    plain_activation: str = "none",
    **kwargs,
) -> SeparableConvBN | ConvBN:
    """A depthwise 3x3 convolution, separable or plain, with norm.

    Args:
        config: says which.
        channels: in and out.
        stride: of the 3x3 convolution.
        plain_activation: of the plain form; the separable one has none.
        **kwargs: of the convolutions.
    """
    kwargs |= {"stride": stride, "bias": config.conv_bias}
    if config.separable:
        return SeparableConvBN(channels, channels, **kwargs)
    return ConvBN(channels, channels, 3, groups=channels, activation=plain_activation, **kwargs)


class Shortcut(nnx.Module):
    """What a gather-and-expansion layer with a stride adds instead of its input."""

    def __init__(self, config: BranchesConfig, in_channels: int, out_channels: int, **kwargs):
        kwargs["bias"] = config.conv_bias
        if config.separable:
            self.spatial = SeparableConvBN(in_channels, out_channels, stride=2, **kwargs)
            in_channels = out_channels
        else:
            options = {"stride": 2, "groups": in_channels, "activation": "none"}
            self.spatial = ConvBN(in_channels, in_channels, 3, **options, **kwargs)
        self.project = ConvBN(in_channels, out_channels, 1, activation="none", **kwargs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, in), to (B, H / 2, W / 2, out)."""
        return self.project(self.spatial(x))


class GatherExpand(nnx.Module):
    """Gather-and-expansion layer: 3x3, depthwise to more channels, 1x1 back, plus the shortcut."""

    def __init__(
        self, config: BranchesConfig, in_channels: int, out_channels: int, *, stride: int, **kwargs
    ):
        inner = config.expansion * in_channels
        self.conv1 = ConvBN(in_channels, in_channels, 3, bias=config.conv_bias, **kwargs)
        self.expand = ConvBN(
            in_channels,
            inner,
            3,
            stride=1 if config.separable else stride,
            groups=in_channels,
            activation="relu" if config.separable or stride == 1 else "none",
            bias=config.conv_bias and stride == 1,
            **kwargs,
        )
        if config.separable:
            strides = (1,) if stride == 1 else (2, 1)
        else:
            strides = () if stride == 1 else (1,)
        self.spatial = nnx.List(
            spatial_conv(config, inner, stride=s, plain_activation="relu", **kwargs)
            for s in strides
        )
        self.project = ConvBN(inner, out_channels, 1, activation="none", **kwargs)
        if config.zero_init_residual:
            self.project.bn.weight.set_value(jnp.zeros_like(self.project.bn.weight[...]))
        self.shortcut = nnx.data(
            Shortcut(config, in_channels, out_channels, **kwargs) if stride == 2 else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, in), to (B, H / stride, W / stride, out)."""
        y = self.expand(self.conv1(x))
        for layer in self.spatial:
            y = layer(y)
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return jax.nn.relu(self.project(y) + shortcut)


class Stem(nnx.Module):
    """Quarters the image twice over, by convolution and by pooling, and fuses both."""

    def __init__(self, config: BranchesConfig, **kwargs):
        channels = config.semantic_channels[0]
        kwargs["bias"] = config.conv_bias
        self.conv = ConvBN(3, channels, 3, stride=2, **kwargs)
        self.reduce = ConvBN(channels, channels // 2, 1, **kwargs)
        self.down = ConvBN(channels // 2, channels, 3, stride=2, **kwargs)
        self.fuse = ConvBN(2 * channels, channels, 3, **kwargs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images, (B, H, W, 3), to (B, H / 4, W / 4, C)."""
        x = self.conv(images)
        down, pooled = self.down(self.reduce(x)), ops.max_pool(x, 3, 2, 1)
        return self.fuse(jnp.concatenate([down, pooled], -1))


class ContextEmbedding(nnx.Module):
    """Adds the mean over the map to each of its pixels, with norms and ReLUs.

    The norms of the mean see one value for each image, so training needs 2 images.
    """

    def __init__(self, channels: int, **kwargs):
        self.bn = ops.BatchNorm(channels, dtype=kwargs["dtype"], param_dtype=kwargs["param_dtype"])
        self.conv_gap = ConvBN(channels, channels, 1, **kwargs)
        self.conv_last = ConvBN(channels, channels, 3, **kwargs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, C), to the same shape."""
        context = self.conv_gap(self.bn(ops.spatial_mean(x)))
        return self.conv_last(context + x)


class PlainContextEmbedding(nnx.Module):
    """Adds the mean over the map to each of its pixels, without norms."""

    def __init__(self, channels: int, **kwargs):
        self.conv_gap = ops.Conv(channels, channels, 1, **kwargs)
        self.conv_last = ops.Conv(channels, channels, 3, padding=1, **kwargs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, C), to the same shape."""
        context = jax.nn.relu(self.conv_gap(ops.spatial_mean(x)))
        return self.conv_last(context + x)


class DetailBranch(nnx.Module):
    """Plain 3x3 convolutions at high resolution."""

    def __init__(self, config: BranchesConfig, *, remat: bool, **kwargs):
        self.remat = remat
        self.stages = nnx.List()
        inputs = (3, *config.detail_channels)
        for stage, (channels, layers) in enumerate(
            zip(config.detail_channels, config.detail_layers, strict=True)
        ):
            self.stages.append(
                nnx.List(
                    ConvBN(
                        inputs[stage] if layer == 0 else channels,
                        channels,
                        3,
                        stride=2 if layer == 0 else 1,
                        bias=config.conv_bias,
                        **kwargs,
                    )
                    for layer in range(layers)
                )
            )

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images, (B, H, W, 3), to (B, H / 8, W / 8, C)."""
        x = images
        for stage in self.stages:
            for layer in stage:
                x = checkpointed(self.remat, layer, x)
        return x


class SemanticBranch(nnx.Module):
    """The stem, three stages of gather-and-expansion layers and the context embedding."""

    def __init__(self, config: BranchesConfig, *, remat: bool, **kwargs):
        self.remat = remat
        self.stem = Stem(config, **kwargs)
        self.stages = nnx.List()
        widths = config.semantic_channels
        for stage, layers in enumerate(config.semantic_layers):
            self.stages.append(
                nnx.List(
                    GatherExpand(
                        config,
                        widths[stage + (layer > 0)],
                        widths[stage + 1],
                        stride=2 if layer == 0 else 1,
                        **kwargs,
                    )
                    for layer in range(layers)
                )
            )
        context = ContextEmbedding if config.context_norm else PlainContextEmbedding
        self.context = context(widths[-1], **kwargs)

    def __call__(self, images: jax.Array) -> tuple[jax.Array, ...]:
        """The output of the stem, of every stage and of the context embedding."""
        x = checkpointed(self.remat, self.stem, images)
        outputs = [x]
        for stage in self.stages:
            for layer in stage:
                x = checkpointed(self.remat, layer, x)
            outputs.append(x)
        return (*outputs, self.context(x))
