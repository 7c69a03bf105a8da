"""SegFormer: a Mix Transformer and a head of 1x1 layers over all four of its maps.

Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with
Transformers", https://arxiv.org/abs/2105.15203. `SegFormerConfig` says what the published
networks do differently: the tutorial's, the authors', Hugging Face's and mmsegmentation's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flaxseg.models.segformer import SegFormerConfig
from torch_ref.blocks import ConvBN, MapDropout, Output, kaiming_normal_
from torch_ref.mit import MiT, init_layer, to_map, to_tokens


class MLPHead(nn.Module):
    """Linear layers, all maps enlarged to the first one's size, one convolution over all."""

    def __init__(self, config: SegFormerConfig):
        super().__init__()
        channels, widths = config.channels, config.backbone.widths
        self.linears = nn.ModuleList(nn.Linear(width, channels) for width in widths)
        self.fuse = ConvBN(len(widths) * channels, channels, 1)
        self.dropout = _dropout(config)
        self.classifier = nn.Conv2d(channels, config.num_classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Logits, (B, K, H, W), at the resolution of the first of the encoder's maps."""
        maps = []
        for linear, x in zip(self.linears, levels, strict=True):
            y = to_map(linear(to_tokens(x)), (x.shape[2], x.shape[3]))
            maps.append(_enlarge(y, levels[0]))
        y = self.fuse(torch.cat(maps[::-1], dim=1))
        return self.classifier(self.dropout(y))


class ConvHead(nn.Module):
    """Like `MLPHead`, but with a normalised convolution and ReLU for each level."""

    def __init__(self, config: SegFormerConfig):
        super().__init__()
        channels, widths = config.channels, config.backbone.widths
        self.convs = nn.ModuleList(ConvBN(width, channels, 1) for width in widths)
        self.fuse = ConvBN(len(widths) * channels, channels, 1)
        self.dropout = _dropout(config)
        self.classifier = nn.Conv2d(channels, config.num_classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Logits, (B, K, H, W), at the resolution of the first of the encoder's maps."""
        maps = [_enlarge(conv(x), levels[0]) for conv, x in zip(self.convs, levels, strict=True)]
        y = self.fuse(torch.cat(maps, dim=1))
        return self.classifier(self.dropout(y))


class SegFormer(nn.Module):
    """The encoder and the head; the logits go to the image's size.

    With `head_init="encoder"` the head starts by the encoder's rules. Otherwise its convolutions
    with a norm start at N(0, 2 / fan_out) and the others with torch's defaults, except that with
    "he_small" the classifier starts at N(0, 0.01^2) with bias 0.
    """

    def __init__(self, config: SegFormerConfig):
        super().__init__()
        self.config = config
        self.backbone = MiT(config.backbone)
        self.head = (MLPHead if config.head == "mlp" else ConvHead)(config)
        for module in self.head.modules():
            if config.head_init == "encoder":
                init_layer(module, config.backbone)
            elif isinstance(module, ConvBN):
                kaiming_normal_(module.conv.weight)
        if config.head_init == "he_small":
            weight, bias = self.head.classifier.parameters()
            nn.init.normal_(weight, std=0.01)
            nn.init.zeros_(bias)

    def forward(self, images: Tensor, resize: bool = True, aux: bool = False) -> Output:
        """Segments images, (B, 3, H, W), normalised.

        Args:
            images: any H and W from the encoder's `smallest_side` on.
            resize: False leaves the logits at a quarter of the resolution.
            aux: changes nothing, there are no auxiliary heads.
        """
        logits = self.head(self.backbone(images))
        return Output(_enlarge(logits, images) if resize else logits)


def _dropout(config: SegFormerConfig) -> nn.Module:
    kind = nn.Dropout2d if config.dropout_kind == "channels" else MapDropout
    return kind(config.dropout)


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
