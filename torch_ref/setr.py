"""SETR: a plain ViT sees the image as a sequence of patches, a small head enlarges its map.

Zheng et al. 2020, "Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with
Transformers", https://arxiv.org/abs/2012.15840. `SETRConfig` says what the published networks do
differently: the tutorial's, mmsegmentation's and the authors' own.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from flaxseg.models.setr import SETRConfig
from torch_ref.blocks import Output
from torch_ref.setr_heads import MLAHead, MLANeck, UpHead
from torch_ref.vit import ViT


class SETR(nn.Module):
    """The encoder, the head with its neck if it has one, and the auxiliary heads."""

    def __init__(self, config: SETRConfig):
        super().__init__()
        self.config = config
        self.backbone = ViT(config.backbone)
        self.neck = _neck(config) if config.head == "mla" else None
        self.head = _mla_head(config) if config.head == "mla" else _up_head(config)
        self.aux_heads = nn.ModuleList(_aux_head(config) for _ in config.aux_inputs)

    def forward(self, images: Tensor, resize: bool = True, aux: bool = False) -> Output:
        """Segments images, (B, 3, H, W), normalised.

        Args:
            images: `config.fixed_size`, or any H and W.
            resize: False leaves the logits at the heads' own resolution.
            aux: also run the auxiliary heads.

        Raises:
            ConfigError: the network does not take this size.
        """
        height, width = images.shape[2:]
        self.config.check_size((height, width))
        maps = self.backbone(images)
        if self.neck is not None:
            maps = self.neck(maps)
        logits = [self.head(maps) if self.neck is not None else self.head(maps[-1])]
        if aux:
            for head, index in zip(self.aux_heads, self.config.aux_inputs, strict=True):
                logits.append(head(maps[index]))
        if resize:
            logits = [_resize(x, (height, width)) for x in logits]
        return Output(logits[0], tuple(logits[1:]))


def _resize(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _up_head(config: SETRConfig) -> UpHead:
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
    )


def _aux_head(config: SETRConfig) -> UpHead:
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
    )


def _neck(config: SETRConfig) -> MLANeck:
    return MLANeck(
        len(config.backbone.out_indices),
        config.backbone.width,
        config.channels,
        norm_eps=config.norm_eps,
        deepest_first=config.deepest_first,
        head_init=config.head_init,
    )


def _mla_head(config: SETRConfig) -> MLAHead:
    return MLAHead(
        len(config.backbone.out_indices),
        config.channels,
        config.level_channels,
        config.num_classes,
        scale=config.scales[0],
        classifier_kernel=config.classifier_kernel,
        align_corners=config.align_corners,
        head_init=config.head_init,
    )
