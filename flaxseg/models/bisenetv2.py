"""BiSeNetV2: two branches, for detail and for meaning, that gate each other before they meet.

Yu et al. 2020, "BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic
Segmentation", https://arxiv.org/abs/2004.02147.

Variants: `bisenetv2` has depthwise-separable convolutions and narrow heads, and fuses as the
paper says; `bisenetv2_matmul` is the same with matrix products in the fusion, which its published
weights expect; `bisenetv2_mmseg` is mmsegmentation's bisenetv2_fcn; `bisenetv2_coincheung` is
https://github.com/CoinCheung/BiSeNet, the reimplementation that most published weights are for.
"""

import dataclasses
from typing import Any, Literal

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg import ops
from flaxseg.labels import MAX_CLASSES
from flaxseg.models.bisenetv2_branches import (
    CONV_INITS,
    BranchesConfig,
    DetailBranch,
    SemanticBranch,
    spatial_conv,
)
from flaxseg.models.blocks import AnySize, ConvBN, Network, Output, require
from flaxseg.ops import initializers as init

AUX_STRIDES = (4, 8, 16, 32)
"""Image pixels for each pixel of the maps that the auxiliary heads read."""

CLASSIFIER_INITS = {
    **CONV_INITS,
    "normal": {"weight_init": init.normal(0.01), "bias_init": init.zeros},
}
"""Initialisers of weights and biases."""

Second = Literal["none", "plain", "upsampled"]


@dataclasses.dataclass(frozen=True)
class BiSeNetV2Config(AnySize):
    """Design choices of a BiSeNetV2.

    Attributes:
        num_classes: classes to tell apart.
        backbone: the two branches; its `separable`, `conv_bias` and `conv_init` hold for the
            aggregation and the heads too.
        fusion: how the aggregation joins a map with its gate, and the fine result with the
            coarse one. "sum": product of pixels, then sum (the paper); "product": products both
            times; "matmul": matrix products of the height-by-width planes both times, which
            takes square images only.
        upsampling: of coarse maps in the aggregation; "bilinear" follows `align_corners`.
        gate_bias: the aggregation's 1x1 convolutions have a bias.
        fused_activation: after the aggregation's last norm.
        head_channels: width of the head.
        aux_channels: width of each auxiliary head: on the stem and on every stage of the semantic
            branch; () leaves all of them out.
        aux_second: a second 3x3 convolution with norm in every auxiliary head: "plain" as wide as
            the first; "upsampled" on the map enlarged twice by repetition, as wide as the square
            of the map's stride.
        dropout: rate in every head; before the classifier, and before an "upsampled" second
            convolution.
        dropout_kind: drop whole channels or single values.
        align_corners: of every bilinear interpolation.
        whole_factors: maps are enlarged by whole factors, so that both sides of an image must be
            multiples of 32; False enlarges to the size of what they meet.
        classifier_init: "torch" and "kaiming" as in the backbone, "normal" draws the classifiers
            from N(0, 0.01^2) with bias 0.
        aux_weights: loss weight of each auxiliary head.
        remat: keep no activations inside the branches' layers for the gradient, but compute them
            again. Gradients and the updates of running statistics are the same.
    """

    num_classes: int = 19
    backbone: BranchesConfig = BranchesConfig()
    fusion: Literal["sum", "product", "matmul"] = "sum"
    upsampling: Literal["bilinear", "nearest"] = "bilinear"
    gate_bias: bool = True
    fused_activation: Literal["none", "relu"] = "none"
    head_channels: int = 128
    aux_channels: tuple[int, ...] = (16, 32, 64, 128)
    aux_second: Second = "none"
    dropout: float = 0.0
    dropout_kind: Literal["channels", "values"] = "channels"
    align_corners: bool = True
    whole_factors: bool = True
    classifier_init: Literal["torch", "kaiming", "normal"] = "torch"
    aux_weights: tuple[float, ...] = (0.2, 0.2, 0.2, 0.2)
    remat: bool = False

    def __post_init__(self):
        require(1 <= self.num_classes <= MAX_CLASSES, "num_classes", self.num_classes, "1 to 255")
        require(self.head_channels >= 1, "head_channels", self.head_channels, "at least 1")
        aux = self.aux_channels
        fits = len(aux) in (0, len(AUX_STRIDES)) and min(aux, default=1) >= 1
        require(fits, "aux_channels", aux, "none or 4 whole numbers from 1 on")
        expected = f"{len(aux)} values, as many as aux_channels"
        require(len(self.aux_weights) == len(aux), "aux_weights", self.aux_weights, expected)
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1")
        fits = self.whole_factors or self.fusion != "matmul"
        require(fits, "whole_factors", self.whole_factors, "True, as fusion is 'matmul'")

    @property
    def size_divisor(self) -> int:
        """Height and width must be multiples of this many pixels."""
        return AUX_STRIDES[-1] if self.whole_factors else 1

    @property
    def square(self) -> bool:
        """Whether height and width must be the same, for the matrix products to fit."""
        return self.fusion == "matmul"

    @property
    def takes_canvas(self) -> bool:
        """See `AnySize`."""
        return not self.square

    def enlargements(self, low: Any, image: Any) -> tuple[tuple[Any, bool], ...]:
        """See `AnySize`."""
        del low
        return ((image, self.align_corners),)


class Gate(nnx.Module):
    """Depthwise convolution with norm, and a 1x1 convolution."""

    def __init__(self, config: BiSeNetV2Config, **kwargs):
        channels = config.backbone.out_channels
        self.spatial = spatial_conv(config.backbone, channels, **kwargs)
        self.project = ops.Conv(channels, channels, 1, bias=config.gate_bias, **kwargs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, C), to the same shape."""
        return self.project(self.spatial(x))


class Aggregation(nnx.Module):
    """Bilateral guided aggregation: each branch, at both resolutions, gates the other."""

    def __init__(self, config: BiSeNetV2Config, **kwargs):
        self.config = config
        channels = config.backbone.out_channels
        conv = {"bias": config.backbone.conv_bias, **kwargs}
        self.detail_keep = Gate(config, **kwargs)
        self.detail_down = ConvBN(channels, channels, 3, stride=2, activation="none", **conv)
        self.semantic_up = ConvBN(channels, channels, 3, activation="none", **conv)
        self.semantic_keep = Gate(config, **kwargs)
        self.out = ConvBN(channels, channels, 3, activation=config.fused_activation, **conv)

    def __call__(self, detail: jax.Array, semantic: jax.Array) -> jax.Array:
        """Fuses both branches.

        Args:
            detail: (B, H / 8, W / 8, C).
            semantic: (B, H / 32, W / 32, C).

        Returns:
            (B, H / 8, W / 8, C).
        """
        size = detail.shape[1], detail.shape[2]
        fine = self.detail_keep(detail)
        coarse = ops.avg_pool(self.detail_down(detail), 3, 2, 1)
        fine_gate = jax.nn.sigmoid(self._enlarge(self.semantic_up(semantic), size))
        coarse_gate = jax.nn.sigmoid(self.semantic_keep(semantic))
        join = _multiply_planes if self.config.fusion == "matmul" else jnp.multiply
        fine = join(fine, fine_gate)
        coarse = self._enlarge(join(coarse, coarse_gate), size)
        return self.out(fine + coarse if self.config.fusion == "sum" else join(fine, coarse))

    def _enlarge(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        if self.config.upsampling == "nearest":
            return ops.resize_nearest(x, size)
        return ops.resize_bilinear(x, size, align_corners=self.config.align_corners)


def _multiply_planes(x: jax.Array, y: jax.Array) -> jax.Array:
    """The matrix product of every channel's (H, W) planes."""
    return jnp.einsum("bhkc,bkwc->bhwc", x, y)


class Backbone(nnx.Module):
    """Both branches and their aggregation."""

    def __init__(self, config: BiSeNetV2Config, **kwargs):
        self.detail = DetailBranch(config.backbone, remat=config.remat, **kwargs)
        self.semantic = SemanticBranch(config.backbone, remat=config.remat, **kwargs)
        self.aggregation = Aggregation(config, **kwargs)

    def __call__(self, images: jax.Array) -> tuple[jax.Array, ...]:
        """The fused map, and the maps of the stem and of every stage of the semantic branch."""
        detail = self.detail(images)
        *maps, context = self.semantic(images)
        return self.aggregation(detail, context), *maps


class SegHead(nnx.Module):
    """A 3x3 convolution, perhaps a second one, and a classifier."""

    def __init__(
        self,
        config: BiSeNetV2Config,
        in_channels: int,
        channels: int,
        *,
        second: Second = "none",
        second_channels: int = 0,
        **kwargs,
    ):
        conv = {"bias": config.backbone.conv_bias, **kwargs}
        self.conv = ConvBN(in_channels, channels, 3, **conv)
        self.second = second
        if second == "none":
            second_channels = channels
            self.conv2 = nnx.data(None)
        else:
            self.conv2 = nnx.data(ConvBN(channels, second_channels, 3, **conv))
        dropout = ops.Dropout2d if config.dropout_kind == "channels" else ops.Dropout
        self.dropout = dropout(config.dropout)
        kwargs |= CLASSIFIER_INITS[config.classifier_init]
        self.classifier = ops.Conv(second_channels, config.num_classes, 1, **kwargs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits (B, H, W, K) for x, (B, H, W, C); twice as high and wide if "upsampled"."""
        x = self.conv(x)
        if self.conv2 is None:
            x = self.dropout(x, rngs)
        elif self.second == "plain":
            x = self.dropout(self.conv2(x), rngs)
        else:
            height, width = x.shape[1:3]
            x = ops.resize_nearest(self.dropout(x, rngs), (2 * height, 2 * width))
            x = self.conv2(x)
        return self.classifier(x)


class BiSeNetV2(Network):
    """Both branches, their aggregation, the head and the auxiliary heads."""

    def __init__(
        self,
        config: BiSeNetV2Config,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kwargs = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        kwargs |= CONV_INITS[config.backbone.conv_init]
        self.config = config
        self.backbone = Backbone(config, **kwargs)
        self.head = SegHead(config, config.backbone.out_channels, config.head_channels, **kwargs)
        self.aux_heads = nnx.List(
            SegHead(
                config,
                config.backbone.semantic_channels[i],
                channels,
                second=config.aux_second,
                second_channels=channels if config.aux_second == "plain" else AUX_STRIDES[i] ** 2,
                **kwargs,
            )
            for i, channels in enumerate(config.aux_channels)
        )

    def logits_align_corners(self, size: tuple[int, int]) -> bool | None:
        """How logits at the heads' resolution become those of pixels, as in `blocks.Network`."""
        del size
        return self.config.align_corners

    @ops.in_own_precision
    def __call__(
        self,
        images: jax.Array,
        *,
        resize: bool = True,
        aux: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> Output:
        """Segments images, (B, H, W, 3), normalised.

        Args:
            images: what sizes fit says `config.size_divisor`; square ones with fusion "matmul".
            resize: False leaves the logits at the heads' own resolution.
            aux: also run the auxiliary heads.
            rngs: keys of the "dropout" stream, for training with dropout.

        Raises:
            ConfigError: images of a size that does not fit.
        """
        height, width = images.shape[1:3]
        self.config.check_size((height, width))
        fused, *maps = self.backbone(images)
        logits = [self.head(fused, rngs)]
        if aux:
            heads = zip(self.aux_heads, maps, strict=False)
            logits += [head(x, rngs) for head, x in heads]
        logits = [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in logits]
        if resize:
            corners = self.config.align_corners
            size = (height, width)
            logits = [ops.resize_bilinear(x, size, align_corners=corners) for x in logits]
        return Output(logits[0], tuple(logits[1:]))


_PUBLISHED = BiSeNetV2Config(
    backbone=BranchesConfig(
        separable=False, conv_bias=False, context_norm=True, conv_init="kaiming"
    ),
    fused_activation="relu",
    head_channels=1024,
    aux_channels=(16, 64, 256, 1024),
    aux_second="plain",
    dropout=0.1,
    align_corners=False,
    whole_factors=False,
    classifier_init="normal",
    aux_weights=(1.0, 1.0, 1.0, 1.0),
)

VARIANTS = {
    "bisenetv2": BiSeNetV2Config(),
    "bisenetv2_matmul": BiSeNetV2Config(fusion="matmul"),
    "bisenetv2_mmseg": _PUBLISHED,
    "bisenetv2_coincheung": dataclasses.replace(
        _PUBLISHED,
        backbone=dataclasses.replace(_PUBLISHED.backbone, zero_init_residual=True),
        upsampling="nearest",
        gate_bias=False,
        aux_channels=(128, 128, 128, 128),
        aux_second="upsampled",
        dropout_kind="values",
        whole_factors=True,
        classifier_init="kaiming",
    ),
}
"""The published networks by name."""
