"""SETR: a plain ViT sees the image as a sequence of patches, a small head enlarges its map.

Zheng et al. 2020, "Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with
Transformers", https://arxiv.org/abs/2012.15840. The encoder never reduces resolution: every token
sees all others in every block.

Variants: `setr` has four equal heads, of which the last predicts, and takes 256x256 images alone;
`setr_naive`, `setr_pup` and `setr_mla` are mmsegmentation's ADE20K checkpoints, with
`_cityscapes` its Cityscapes ones, and with `_original` the authors' own, for 512x512 images alone.
"""

import dataclasses
from typing import Literal, Self

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg import ops
from flaxseg.labels import MAX_CLASSES
from flaxseg.models.blocks import AnySize, Network, Output, require
from flaxseg.models.setr_heads import MLAHead, MLANeck, UpHead
from flaxseg.models.vit import ViT, ViTConfig


@dataclasses.dataclass(frozen=True)
class SETRConfig(AnySize):
    """Design choices of a SETR.

    Attributes:
        num_classes: classes to tell apart.
        backbone: the encoder.
        head: "up" reads the encoder's last map, and is the naive head with 1x1 and the
            progressive one (PUP) with 3x3 convolutions; "mla" aggregates all maps.
        channels: width of the heads' convolutions; with "mla", of the neck's.
        kernel_size: of the convolutions of an "up" head.
        scales: enlargement after each of its convolutions; with "mla", one enlargement in all.
        conv_bias: convolutions of "up" heads have a bias in front of their norm.
        token_norm: "up" heads begin with a layer norm; "mla" always has one a level.
        norm_eps: of those layer norms.
        classifier_kernel: side of the classifiers' kernels; 1 in the auxiliary heads of "mla".
        align_corners: of the enlargements inside the heads; that to the image has it false.
        level_channels: width of the branch of each level in an "mla" head.
        deepest_first: the neck returns, and the head concatenates, its levels from the deepest to
            the shallowest.
        aux_inputs: which of the encoder's maps, or of the neck's levels, have an auxiliary head.
        aux_kernel_size: of the auxiliary heads' convolutions.
        aux_scales: enlargement after each of them; none leaves the classifier alone.
        aux_bias: their classifiers have a bias.
        aux_weights: loss weight of each auxiliary head.
        head_init: "torch" keeps torch's defaults in the heads; "kaiming" draws normalised
            convolutions with He's rule and classifiers from N(0, 0.01^2).
        remat: keep no activations inside the encoder's blocks for the gradient, but compute them
            again.
    """

    num_classes: int = 32
    backbone: ViTConfig = ViTConfig()
    head: Literal["up", "mla"] = "up"
    channels: int = 256
    kernel_size: int = 3
    scales: tuple[int, ...] = (2, 2, 2, 2)
    conv_bias: bool = True
    token_norm: bool = False
    norm_eps: float = 1e-6
    classifier_kernel: int = 3
    align_corners: bool = True
    level_channels: int = 128
    deepest_first: bool = False
    aux_inputs: tuple[int, ...] = (0, 1, 2)
    aux_kernel_size: int = 3
    aux_scales: tuple[int, ...] = (2, 2, 2, 2)
    aux_bias: bool = True
    aux_weights: tuple[float, ...] = (0.2, 0.3, 0.4)
    head_init: Literal["torch", "kaiming"] = "torch"
    remat: bool = False

    def __post_init__(self):
        require(1 <= self.num_classes <= MAX_CLASSES, "num_classes", self.num_classes, "1 to 255")
        for name in ("channels", "level_channels"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("kernel_size", "classifier_kernel", "aux_kernel_size"):
            require(getattr(self, name) % 2 == 1, name, getattr(self, name), "an odd number")
        for name in ("scales", "aux_scales"):
            value = getattr(self, name)
            require(min(value, default=1) >= 1, name, value, "whole numbers from 1 on")
        if self.head == "mla":
            require(len(self.scales) == 1, "scales", self.scales, "one number, as head is 'mla'")
        require(self.norm_eps > 0, "norm_eps", self.norm_eps, "above 0")
        maps = len(self.backbone.out_indices)
        fits = set(self.aux_inputs) <= set(range(maps))
        expected = f"numbers from 0 to {maps - 1}, as the encoder returns {maps} maps"
        require(fits, "aux_inputs", self.aux_inputs, expected)
        heads = len(self.aux_inputs)
        expected = f"{heads} values, as aux_inputs is {self.aux_inputs}"
        require(len(self.aux_weights) == heads, "aux_weights", self.aux_weights, expected)

    @property
    def one_program(self) -> bool:
        """See `AnySize`; a table of positions is resized or not by the number of patches."""
        return False

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """The only image size that the network takes, (H, W); None if it takes any."""
        fixed = self.backbone.resize_positions == "none"
        return self.backbone.image_size if fixed else None

    def with_image_size(self, size: tuple[int, int]) -> Self:
        """The configuration for images of this height and width in pixels.

        Raises:
            ConfigError: the network takes one size alone, and this is not whole patches.
        """
        if self.fixed_size is None:
            return self
        backbone = dataclasses.replace(self.backbone, image_size=tuple(size))
        return dataclasses.replace(self, backbone=backbone)


class SETR(Network):
    """The encoder, the head with its neck if it has one, and the auxiliary heads."""

    def __init__(
        self,
        config: SETRConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kwargs = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.config = config
        self.backbone = ViT(config.backbone, remat=config.remat, **kwargs)
        if config.head == "mla":
            self.neck = nnx.data(_neck(config, **kwargs))
            self.head = _mla_head(config, **kwargs)
        else:
            self.neck = nnx.data(None)
            self.head = _up_head(config, **kwargs)
        self.aux_heads = nnx.List(_aux_head(config, **kwargs) for _ in config.aux_inputs)

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
            images: `config.fixed_size`, or any H and W.
            resize: False leaves the logits at the heads' own resolution.
            aux: also run the auxiliary heads.
            rngs: keys of the "dropout" stream, for training with dropout.

        Raises:
            ConfigError: the network does not take this size.
        """
        size = images.shape[1], images.shape[2]
        self.config.check_size(size)
        maps = self.backbone(images, rngs)
        if self.neck is not None:
            maps = self.neck(maps)
        head = self.head
        logits = (head(maps) if isinstance(head, MLAHead) else head(maps[-1]),)
        if aux:
            inputs = (maps[index] for index in self.config.aux_inputs)
            logits += tuple(h(x) for h, x in zip(self.aux_heads, inputs, strict=True))
        if resize:
            logits = tuple(ops.resize_bilinear(x, size) for x in logits)
        return Output(logits[0], logits[1:])


def _up_head(config: SETRConfig, **kwargs) -> UpHead:
    return UpHead(
        config.backbone.width,
        config.channels,
        config.num_classes,
        scales=config.scales,
        kernel_size=config.kernel_size,
        conv_bias=config.conv_bias,
        classifier_kernel=config.classifier_kernel,
        classifier_bias=True,
        align_corners=config.align_corners,
        norm_eps=config.norm_eps if config.token_norm else None,
        head_init=config.head_init,
        **kwargs,
    )


def _aux_head(config: SETRConfig, **kwargs) -> UpHead:
    of_neck = config.head == "mla"
    return UpHead(
        config.channels if of_neck else config.backbone.width,
        config.channels,
        config.num_classes,
        scales=config.aux_scales,
        kernel_size=config.aux_kernel_size,
        conv_bias=config.conv_bias,
        classifier_kernel=1 if of_neck else config.classifier_kernel,
        classifier_bias=config.aux_bias,
        align_corners=config.align_corners,
        norm_eps=config.norm_eps if config.token_norm and not of_neck else None,
        head_init=config.head_init,
        **kwargs,
    )


def _neck(config: SETRConfig, **kwargs) -> MLANeck:
    return MLANeck(
        len(config.backbone.out_indices),
        config.backbone.width,
        config.channels,
        norm_eps=config.norm_eps,
        deepest_first=config.deepest_first,
        head_init=config.head_init,
        **kwargs,
    )


def _mla_head(config: SETRConfig, **kwargs) -> MLAHead:
    return MLAHead(
        len(config.backbone.out_indices),
        config.channels,
        config.level_channels,
        config.num_classes,
        scale=config.scales[0],
        classifier_kernel=config.classifier_kernel,
        align_corners=config.align_corners,
        head_init=config.head_init,
        **kwargs,
    )


_VIT_L = ViTConfig(image_size=(512, 512), mlp_dim=4096, qkv_bias=True, norm_eps=1e-6)
_ANY_SIZE = dataclasses.replace(_VIT_L, patch_bias=False, resize_positions="bilinear", init="jax")
_ONE_SIZE = dataclasses.replace(_VIT_L, init="timm")
_MLA_MAPS = {"out_indices": (5, 11, 17, 23), "class_token": "drop"}

_NAIVE = SETRConfig(
    num_classes=150,
    backbone=_ANY_SIZE,
    kernel_size=1,
    scales=(4,),
    conv_bias=False,
    token_norm=True,
    classifier_kernel=1,
    align_corners=False,
    aux_kernel_size=1,
    aux_scales=(4, 4),
    aux_weights=(0.4, 0.4, 0.4),
    head_init="kaiming",
)
_PUP = dataclasses.replace(_NAIVE, kernel_size=3, scales=(2, 2, 2, 2), aux_kernel_size=3)
_MLA = dataclasses.replace(
    _NAIVE,
    backbone=dataclasses.replace(_ANY_SIZE, **_MLA_MAPS),
    head="mla",
    deepest_first=True,
    aux_inputs=(0, 1, 2, 3),
    aux_scales=(),
    aux_weights=(0.4, 0.4, 0.4, 0.4),
)

_ORIGINAL = {"backbone": _ONE_SIZE, "conv_bias": True, "head_init": "torch"}
_NAIVE_ORIGINAL = dataclasses.replace(_NAIVE, **_ORIGINAL, scales=(1,), aux_scales=(1,))
_PUP_ORIGINAL = dataclasses.replace(
    _PUP,
    **_ORIGINAL,
    scales=(2, 2, 2, 1),
    aux_inputs=(0, 1, 2, 3),
    aux_scales=(4,),
    aux_weights=(0.4, 0.4, 0.4, 0.4),
)
_MLA_ORIGINAL = dataclasses.replace(
    _MLA,
    backbone=dataclasses.replace(_ONE_SIZE, **_MLA_MAPS),
    classifier_kernel=3,
    align_corners=True,
    deepest_first=False,
    aux_bias=False,
    head_init="torch",
)


def _cityscapes(config: SETRConfig, **changes) -> SETRConfig:
    backbone = dataclasses.replace(config.backbone, image_size=(768, 768))
    return dataclasses.replace(config, num_classes=19, backbone=backbone, **changes)


VARIANTS = {
    "setr": SETRConfig(),
    "setr_naive": _NAIVE,
    "setr_pup": _PUP,
    "setr_mla": _MLA,
    "setr_naive_cityscapes": _cityscapes(_NAIVE, aux_scales=(4,)),
    "setr_pup_cityscapes": _cityscapes(_PUP),
    "setr_mla_cityscapes": _cityscapes(_MLA),
    "setr_naive_original": _NAIVE_ORIGINAL,
    "setr_pup_original": _PUP_ORIGINAL,
    "setr_mla_original": _MLA_ORIGINAL,
}
"""The published networks by name."""
