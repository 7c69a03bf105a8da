"""CCNet: a dilated ResNet whose head gathers context along rows and columns, twice.

Huang et al. 2019, "CCNet: Criss-Cross Attention for Semantic Segmentation",
https://arxiv.org/abs/1811.11721. Applied twice with shared weights, criss-cross attention lets
every pixel see every other at a fraction of the cost of full attention.

Variants: `ccnet` has a 7x7 stem, dilation from the first stage on, and a head without ReLU whose
output is 8 times the stride-8 map; `ccnet_r50` and `ccnet_r101` are the networks of
mmsegmentation's ccnet_r50-d8 and ccnet_r101-d8 checkpoints; `ccnet_r101_original` is the authors'
own, with a wider stem and leaky ReLUs in the heads.
"""

import dataclasses
from typing import Any, Literal

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg import ops
from flaxseg.labels import MAX_CLASSES
from flaxseg.models.blocks import AnySize, ConvBN, Network, Output, require
from flaxseg.models.resnet import ResNet, ResNetConfig
from flaxseg.ops import initializers as init

AUX_STAGE = 2
"""The auxiliary head reads the third stage."""


@dataclasses.dataclass(frozen=True)
class CCNetConfig(AnySize):
    """Design choices of a CCNet.

    Attributes:
        num_classes: classes to tell apart.
        backbone: the encoder.
        channels: width of the head.
        reduction: query and key have channels // reduction channels.
        recurrence: times the criss-cross attention is applied, with shared weights.
        activation: after the head's normalised convolutions; "leaky_relu" has slope 0.01.
        out_norm: normalise the convolution that follows the attention.
        dropout: rate of whole channels dropped before each classifier.
        upsample: "x8" enlarges the stride-8 map 8 times, to 8 * ceil(H / 8); "image" goes to the
            image's own size.
        align_corners: of the final interpolation.
        aux_channels: width of the auxiliary head on the third stage; 0 leaves it out.
        aux_activation: after its normalised convolution.
        aux_bias: that convolution has a bias.
        aux_weights: loss weight of each auxiliary head.
        head_init: "torch" keeps torch's defaults in the head; "kaiming" draws its normalised
            convolutions with He's rule and classifiers from N(0, 0.01^2).
        remat: keep no activations inside the encoder's blocks for the gradient, but compute them
            again. Gradients and the updates of running statistics are the same.
    """

    num_classes: int = 19
    backbone: ResNetConfig = ResNetConfig(
        strides=(1, 1, 2, 1), dilations=(2, 2, 4, 4), first_dilations=(2, 2, 2, 4)
    )
    channels: int = 512
    reduction: int = 8
    recurrence: int = 2
    activation: Literal["none", "relu", "leaky_relu"] = "none"
    out_norm: bool = False
    dropout: float = 0.0
    upsample: Literal["x8", "image"] = "x8"
    align_corners: bool = True
    aux_channels: int = 0
    aux_activation: Literal["relu", "leaky_relu"] = "relu"
    aux_bias: bool = False
    aux_weights: tuple[float, ...] = ()
    head_init: Literal["torch", "kaiming"] = "torch"
    remat: bool = False

    def __post_init__(self):
        require(1 <= self.num_classes <= MAX_CLASSES, "num_classes", self.num_classes, "1 to 255")
        require(self.reduction >= 1, "reduction", self.reduction, "at least 1")
        require(self.channels >= self.reduction, "channels", self.channels, "reduction or more")
        require(self.recurrence >= 1, "recurrence", self.recurrence, "at least 1")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1")
        require(self.aux_channels >= 0, "aux_channels", self.aux_channels, "0 or more")
        heads = int(self.aux_channels > 0)
        expected = f"{heads} values, as aux_channels is {self.aux_channels}"
        require(len(self.aux_weights) == heads, "aux_weights", self.aux_weights, expected)
        expected = f"'image', as the output stride is {self.output_stride}"
        require(
            self.upsample == "image" or self.output_stride == 8,
            "upsample",
            self.upsample,
            expected,
        )

    @property
    def output_stride(self) -> int:
        """Image pixels for each pixel of the head's map."""
        stride = 4
        for stage_stride in self.backbone.strides:
            stride *= stage_stride
        return stride

    @property
    def takes_canvas(self) -> bool:
        """See `AnySize`."""
        return True

    def enlargements(self, low: Any, image: Any) -> tuple[tuple[Any, bool], ...]:
        """See `AnySize`."""
        first = 8 * low if self.upsample == "x8" else image
        return (first, self.align_corners), (image, False)


class CrissCrossAttention(nnx.Module):
    """x + gamma * attention(x), with attention along each pixel's row and column."""

    def __init__(self, channels: int, reduction: int, *, param_dtype: DTypeLike, **kwargs):
        kwargs["param_dtype"] = param_dtype
        self.query = ops.Conv(channels, channels // reduction, 1, **kwargs)
        self.key = ops.Conv(channels, channels // reduction, 1, **kwargs)
        self.value = ops.Conv(channels, channels, 1, **kwargs)
        # Zero makes a fresh module the identity.
        self.gamma = nnx.Param(jnp.zeros((1,), param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, C), to the same shape."""
        attended = ops.criss_cross_attention(self.query(x), self.key(x), self.value(x))
        return self.gamma[...].astype(x.dtype) * attended + x


class ConvOut(nnx.Module):
    """The bare convolution after the attention, for heads that do not normalise it."""

    def __init__(self, channels: int, *, weight_init: init.Initializer, **kwargs):
        self.conv = ops.Conv(
            channels, channels, 3, padding=1, bias=False, weight_init=weight_init, **kwargs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, C), to the same shape."""
        return self.conv(x)


class CCHead(nnx.Module):
    """Reduce, attend, concatenate with the encoder's map, fuse, classify."""

    def __init__(self, config: CCNetConfig, in_channels: int, **kwargs):
        weight_init, classifier_init = _head_inits(config)
        channels, activation = config.channels, config.activation
        conv = {"activation": activation, "weight_init": weight_init, **kwargs}
        self.conv_in = ConvBN(in_channels, channels, 3, **conv)
        self.cca = CrissCrossAttention(channels, config.reduction, **kwargs)
        if config.out_norm:
            self.conv_out = ConvBN(channels, channels, 3, **conv)
        else:
            self.conv_out = ConvOut(channels, weight_init=weight_init, **kwargs)
        self.fuse = ConvBN(in_channels + channels, channels, 3, **conv)
        self.dropout = ops.Dropout2d(config.dropout)
        self.classifier = ops.Conv(channels, config.num_classes, 1, **classifier_init, **kwargs)
        self.recurrence = config.recurrence

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits (B, H, W, K) at the resolution of x, (B, H, W, C)."""
        y = self.conv_in(x)
        for _ in range(self.recurrence):
            y = self.cca(y)
        y = self.conv_out(y)
        y = self.fuse(jnp.concatenate([x, y], -1))
        return self.classifier(self.dropout(y, rngs))


class FCNHead(nnx.Module):
    """One 3x3 convolution and a classifier, for deep supervision."""

    def __init__(self, config: CCNetConfig, in_channels: int, **kwargs):
        weight_init, classifier_init = _head_inits(config)
        channels = config.aux_channels
        self.conv = ConvBN(
            in_channels,
            channels,
            3,
            activation=config.aux_activation,
            bias=config.aux_bias,
            weight_init=weight_init,
            **kwargs,
        )
        self.dropout = ops.Dropout2d(config.dropout)
        self.classifier = ops.Conv(channels, config.num_classes, 1, **classifier_init, **kwargs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits (B, H, W, K) at the resolution of x, (B, H, W, C)."""
        return self.classifier(self.dropout(self.conv(x), rngs))


class CCNet(Network):
    """The encoder, the criss-cross head and, in some variants, an auxiliary head."""

    def __init__(
        self,
        config: CCNetConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kwargs = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.config = config
        channels = config.backbone.out_channels
        self.backbone = ResNet(config.backbone, remat=config.remat, **kwargs)
        self.head = CCHead(config, channels[-1], **kwargs)
        self.aux_head = nnx.data(
            FCNHead(config, channels[AUX_STAGE], **kwargs) if config.aux_channels else None
        )

    def logits_align_corners(self, size: tuple[int, int]) -> bool | None:
        """How logits at the heads' resolution become those of pixels, as in `blocks.Network`."""
        whole = not any(side % 8 for side in size) and not self.config.backbone.ceil_pool
        # Where 8 times the map is not the image, another interpolation follows.
        once = self.config.upsample == "image" or whole
        return self.config.align_corners if once else None

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
            images: any H and W.
            resize: False leaves the logits at the heads' own resolution.
            aux: also run the auxiliary head.
            rngs: keys of the "dropout" stream, for training with dropout.
        """
        stages = self.backbone(images)
        logits = (self.head(stages[-1], rngs),)
        if aux and self.aux_head is not None:
            logits += (self.aux_head(stages[AUX_STAGE], rngs),)
        logits = tuple(x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in logits)
        if resize:
            # Interpolation weights sum to 1, so classifying before enlarging is the same
            # function for 1 / 64 of the classifier's work.
            logits = tuple(self._enlarge(x, images.shape[1], images.shape[2]) for x in logits)
        return Output(logits[0], logits[1:])

    def _enlarge(self, logits: jax.Array, height: int, width: int) -> jax.Array:
        if self.config.upsample == "x8":
            height, width = (8 * side for side in logits.shape[1:3])
        return ops.resize_bilinear(logits, (height, width), align_corners=self.config.align_corners)


def _head_inits(config: CCNetConfig) -> tuple[init.Initializer, dict[str, init.Initializer]]:
    """Initialisers of the head's convolutions, and of its classifier's weight and bias."""
    if config.head_init == "torch":
        return init.torch_default, {}
    classifier = {"weight_init": init.normal(0.01), "bias_init": init.zeros}
    return init.kaiming_normal_fan_out, classifier


def _published(blocks: tuple[int, ...]) -> CCNetConfig:
    backbone = ResNetConfig(
        blocks=blocks,
        stem_channels=(32, 32, 64),
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        first_dilations=(1, 1, 1, 2),
        zero_init_residual=True,
    )
    return CCNetConfig(
        backbone=backbone,
        activation="relu",
        out_norm=True,
        dropout=0.1,
        upsample="image",
        align_corners=False,
        aux_channels=256,
        aux_weights=(0.4,),
        head_init="kaiming",
    )


_ORIGINAL = CCNetConfig(
    backbone=ResNetConfig(
        blocks=(3, 4, 23, 3),
        stem_channels=(64, 64, 128),
        ceil_pool=True,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        first_dilations=(1, 1, 2, 4),
        conv_init="torch",
    ),
    activation="leaky_relu",
    out_norm=True,
    dropout=0.1,
    upsample="image",
    align_corners=True,
    aux_channels=512,
    aux_activation="leaky_relu",
    aux_bias=True,
    aux_weights=(0.4,),
)

VARIANTS = {
    "ccnet": CCNetConfig(),
    "ccnet_r50": _published((3, 4, 6, 3)),
    "ccnet_r101": _published((3, 4, 23, 3)),
    "ccnet_r101_original": _ORIGINAL,
}
"""The published networks by name."""
