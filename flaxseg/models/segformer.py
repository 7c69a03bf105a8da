"""SegFormer: a Mix Transformer and a head of 1x1 layers over all four of its maps.

Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with
Transformers", https://arxiv.org/abs/2105.15203.

Variants: `segformer` is B0 with one epsilon in all norms; `segformer_b0` to `segformer_b5` are the
networks of the authors' checkpoints (ADE20K), `segformer_b0_hf` to `segformer_b5_hf` those of
Hugging Face, which drop single values instead of channels, and `segformer_b0_mmseg` to
`segformer_b5_mmseg` those of mmsegmentation, whose head normalises every level.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg import ops
from flaxseg.errors import ConfigError
from flaxseg.labels import MAX_CLASSES
from flaxseg.models.blocks import AnySize, ConvBN, Network, Output, require
from flaxseg.models.mit import STD, MiT, MiTConfig, conv_init
from flaxseg.ops import initializers as init


@dataclasses.dataclass(frozen=True)
class SegFormerConfig(AnySize):
    """Design choices of a SegFormer.

    Attributes:
        num_classes: classes to tell apart.
        backbone: the encoder.
        head: "mlp" takes every map through a linear layer and fuses them, the deepest first;
            "conv" through a convolution with norm and ReLU, and fuses them, the finest first.
        channels: width of the head.
        dropout: rate before the classifier.
        dropout_kind: what is dropped there, whole "channels" or single "values".
        head_init: "encoder" draws the head's layers with the encoder's rules; "he" draws its
            normalised convolutions from N(0, 2 / fan_out) and keeps torch's defaults in the
            others; "he_small" draws the classifier from N(0, 0.01^2) besides.
        aux_weights: empty, there are no auxiliary heads.
        remat: compute activations of the encoder's blocks again for the gradient, not keep them.
    """

    num_classes: int = 19
    backbone: MiTConfig = MiTConfig()
    head: Literal["mlp", "conv"] = "mlp"
    channels: int = 256
    dropout: float = 0.1
    dropout_kind: Literal["channels", "values"] = "channels"
    head_init: Literal["encoder", "he", "he_small"] = "encoder"
    aux_weights: tuple[float, ...] = ()
    remat: bool = False

    def __post_init__(self):
        require(1 <= self.num_classes <= MAX_CLASSES, "num_classes", self.num_classes, "1 to 255")
        require(self.channels >= 1, "channels", self.channels, "at least 1")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1")
        require(self.aux_weights == (), "aux_weights", self.aux_weights, "no values")

    @property
    def takes_canvas(self) -> bool:
        """See `AnySize`."""
        return True

    def enlargements(self, low: Any, image: Any) -> tuple[tuple[Any, bool], ...]:
        """See `AnySize`."""
        del low
        return ((image, False),)

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises a `ConfigError` for images so small that some attention would have no key."""
        super().check_size(size)
        smallest = self.backbone.smallest_side
        if any(side < smallest for side in size):  # each may be symbolic, which have no minimum
            raise ConfigError(
                f"images of {size[0]}x{size[1]} pixels are too small for the network, which needs "
                f"{smallest} or more on both sides: enlarge or pad them"
            )


class Head(nnx.Module):
    """What both kinds of head share: fuse all levels, drop, classify."""

    def __init__(self, config: SegFormerConfig, **kwargs):
        channels = config.channels
        norm_init, classifier_init = _inits(config)
        inputs = len(config.backbone.widths) * channels
        self.fuse = ConvBN(inputs, channels, 1, weight_init=norm_init, **kwargs)
        kind = ops.Dropout2d if config.dropout_kind == "channels" else ops.Dropout
        self.dropout = kind(config.dropout)
        self.classifier = ops.Conv(channels, config.num_classes, 1, **classifier_init, **kwargs)

    def __call__(self, levels: Sequence[jax.Array], rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits (B, H, W, K) at the resolution of the first level.

        Args:
            levels: the encoder's maps, (B, H_i, W_i, C_i), the finest first.
            rngs: keys of the "dropout" stream.
        """
        # A 1x1 convolution over a concatenation is a sum with one part for each level, and
        # commutes with interpolation, whose weights sum to 1. So every level meets its part at
        # its own resolution, and the concatenated map, 4 times as wide as the head and at the
        # finest resolution, never exists.
        weight = self.fuse.conv.weight[...][0, 0]
        fused = self.fuse_levels(levels, jnp.split(weight, len(levels)))
        size = levels[0].shape[1], levels[0].shape[2]
        total = functools.reduce(jnp.add, (ops.resize_bilinear(x, size) for x in fused))
        y = jax.nn.relu(self.fuse.bn(total))
        return self.classifier(self.dropout(y, rngs))

    def fuse_levels(
        self, levels: Sequence[jax.Array], parts: Sequence[jax.Array]
    ) -> list[jax.Array]:
        """Each level behind its part of the fuse convolution, at its own resolution.

        Args:
            levels: the encoder's maps, the finest first.
            parts: matrices (channels, channels), in the order of the concatenation.
        """
        raise NotImplementedError


class MLPHead(Head):
    """A linear layer for each level (section 3.2, equation 4)."""

    def __init__(self, config: SegFormerConfig, **kwargs):
        options = {}
        if config.head_init == "encoder":
            options = {"weight_init": init.normal(STD), "bias_init": init.zeros}
        self.linears = nnx.List(
            ops.Linear(width, config.channels, **options, **kwargs)
            for width in config.backbone.widths
        )
        super().__init__(config, **kwargs)

    def fuse_levels(
        self, levels: Sequence[jax.Array], parts: Sequence[jax.Array]
    ) -> list[jax.Array]:
        """Each level behind its part of the fuse convolution, at its own resolution."""
        # The deepest level was concatenated first.
        layers = zip(levels, self.linears, reversed(parts), strict=True)
        return [_apply_both(x, linear, part) for x, linear, part in layers]


class ConvHead(Head):
    """A normalised 1x1 convolution with ReLU for each level."""

    def __init__(self, config: SegFormerConfig, **kwargs):
        self.convs = nnx.List(
            ConvBN(width, config.channels, 1, weight_init=_inits(config)[0], **kwargs)
            for width in config.backbone.widths
        )
        super().__init__(config, **kwargs)

    def fuse_levels(
        self, levels: Sequence[jax.Array], parts: Sequence[jax.Array]
    ) -> list[jax.Array]:
        """Each level behind its part of the fuse convolution, at its own resolution."""
        maps = (conv(x) for conv, x in zip(self.convs, levels, strict=True))
        return [x @ part.astype(x.dtype) for x, part in zip(maps, parts, strict=True)]


class SegFormer(Network):
    """The encoder and the head; the logits go to the image's size."""

    def __init__(
        self,
        config: SegFormerConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kwargs = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.config = config
        self.backbone = MiT(config.backbone, remat=config.remat, **kwargs)
        self.head = (MLPHead if config.head == "mlp" else ConvHead)(config, **kwargs)

    def logits_align_corners(self, size: tuple[int, int]) -> bool | None:
        """How logits at the heads' resolution become those of pixels, as in `blocks.Network`."""
        del size
        return False

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
            images: any H and W from the encoder's `smallest_side` on.
            resize: False leaves the logits at a quarter of the resolution.
            aux: changes nothing, there are no auxiliary heads.
            rngs: keys of the "dropout" stream, for training with dropout.

        Raises:
            ConfigError: the images are too small.
        """
        size = images.shape[1], images.shape[2]
        self.config.check_size(size)
        logits = self.head(self.backbone(images, rngs), rngs)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        if resize:
            logits = ops.resize_bilinear(logits, size, align_corners=False)
        return Output(logits)


def _apply_both(x: jax.Array, linear: ops.Linear, part: jax.Array) -> jax.Array:
    """A linear layer and a matrix behind it as one: nothing stands between them."""
    assert linear.bias is not None
    both = functools.partial(jnp.matmul, precision=ops.EXACT)
    weight, bias = both(linear.weight[...], part), both(linear.bias[...], part)
    return x @ weight.astype(x.dtype) + bias.astype(x.dtype)


def _inits(config: SegFormerConfig) -> tuple[init.Initializer, dict[str, init.Initializer]]:
    """Initialisers of normalised convolutions, and of the classifier's weight and bias."""
    if config.head_init == "encoder":
        rule = conv_init(config.backbone)
        return rule, {"weight_init": rule, "bias_init": init.zeros}
    small = {"weight_init": init.normal(0.01), "bias_init": init.zeros}
    return init.kaiming_normal_fan_out, small if config.head_init == "he_small" else {}


DEPTHS = {
    "b0": (2, 2, 2, 2),
    "b1": (2, 2, 2, 2),
    "b2": (3, 4, 6, 3),
    "b3": (3, 4, 18, 3),
    "b4": (3, 8, 27, 3),
    "b5": (3, 6, 40, 3),
}
"""Blocks of each stage by the network's size."""

AUTHORS = SegFormerConfig(
    num_classes=150,
    backbone=MiTConfig(norm_eps=1e-6, conv_init="he_groups"),
    head_init="he",
)
HUGGING_FACE = SegFormerConfig(
    num_classes=150,
    backbone=MiTConfig(conv_init="normal"),
    dropout_kind="values",
)
MMSEG = SegFormerConfig(
    num_classes=150,
    backbone=MiTConfig(
        embed_norm_eps=1e-6,
        reduction_norm_eps=1e-6,
        norm_eps=1e-6,
        conv_init="he_groups",
        linear_init="xavier_he",
    ),
    head="conv",
    head_init="he_small",
)


def _sized(config: SegFormerConfig, size: str) -> SegFormerConfig:
    widths = (32, 64, 160, 256) if size == "b0" else (64, 128, 320, 512)
    backbone = dataclasses.replace(config.backbone, widths=widths, depths=DEPTHS[size])
    wide = config.head == "mlp" and size not in ("b0", "b1")
    return dataclasses.replace(config, backbone=backbone, channels=768 if wide else 256)


VARIANTS = {
    "segformer": SegFormerConfig(),
    **{f"segformer_{size}": _sized(AUTHORS, size) for size in DEPTHS},
    **{f"segformer_{size}_hf": _sized(HUGGING_FACE, size) for size in DEPTHS},
    **{f"segformer_{size}_mmseg": _sized(MMSEG, size) for size in DEPTHS},
}
"""The published networks by name."""
