"""BiSeNetV2: two branches, for detail and for meaning, that gate each other before they meet.

Yu et al. 2020, "BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic
Segmentation", https://arxiv.org/abs/2004.02147. `BiSeNetV2Config` says what the published networks
do differently: the tutorial's, mmsegmentation's, and https://github.com/CoinCheung/BiSeNet.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flaxseg.models.bisenetv2 import AUX_STRIDES, BiSeNetV2Config
from torch_ref.bisenetv2_branches import (
    DetailBranch,
    GatherExpand,
    SemanticBranch,
    spatial_conv,
)
from torch_ref.blocks import ConvBN, MapDropout, Output, kaiming_normal_


class Gate(nn.Module):
    """Depthwise convolution with norm, and a 1x1 convolution."""

    def __init__(self, config: BiSeNetV2Config):
        super().__init__()
        channels = config.backbone.out_channels
        self.spatial = spatial_conv(config.backbone, channels)
        self.project = nn.Conv2d(channels, channels, 1, bias=config.gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, C, H, W), to the same shape."""
        return self.project(self.spatial(x))


class Aggregation(nn.Module):
    """Bilateral guided aggregation: each branch, at both resolutions, gates the other."""

    def __init__(self, config: BiSeNetV2Config):
        super().__init__()
        self.config = config
        channels, bias = config.backbone.out_channels, config.backbone.conv_bias
        self.detail_keep = Gate(config)
        self.detail_down = ConvBN(channels, channels, 3, stride=2, activation="none", bias=bias)
        self.avgpool = nn.AvgPool2d(3, stride=2, padding=1)
        self.semantic_up = ConvBN(channels, channels, 3, activation="none", bias=bias)
        self.semantic_keep = Gate(config)
        self.out = ConvBN(channels, channels, 3, activation=config.fused_activation, bias=bias)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        """Fuses both branches.

        Args:
            detail: (B, C, H / 8, W / 8).
            semantic: (B, C, H / 32, W / 32).

        Returns:
            (B, C, H / 8, W / 8).
        """
        size = detail.shape[2:]
        fine = self.detail_keep(detail)
        coarse = self.avgpool(self.detail_down(detail))
        fine_gate = self._enlarge(self.semantic_up(semantic), size).sigmoid()
        coarse_gate = self.semantic_keep(semantic).sigmoid()

        if self.config.fusion == "matmul":
            # Products of the (H, W) planes of every channel.
            fine, coarse = fine @ fine_gate, coarse @ coarse_gate
        else:
            fine, coarse = fine * fine_gate, coarse * coarse_gate
        coarse = self._enlarge(coarse, size)
        if self.config.fusion == "matmul":
            return self.out(fine @ coarse)
        if self.config.fusion == "product":
            return self.out(fine * coarse)
        return self.out(fine + coarse)

    def _enlarge(self, x: Tensor, size: torch.Size) -> Tensor:
        if self.config.upsampling == "nearest":
            return F.interpolate(x, size, mode="nearest")
        align_corners = self.config.align_corners
        return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


class Backbone(nn.Module):
    """Both branches and their aggregation."""

    def __init__(self, config: BiSeNetV2Config):
        super().__init__()
        self.detail = DetailBranch(config.backbone)
        self.semantic = SemanticBranch(config.backbone)
        self.aggregation = Aggregation(config)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The fused map, and the maps of the stem and of every stage of the semantic branch."""
        detail = self.detail(images)
        *maps, context = self.semantic(images)
        return self.aggregation(detail, context), *maps


class SegHead(nn.Module):
    """A 3x3 convolution, perhaps a second one, and a classifier."""

    def __init__(
        self,
        config: BiSeNetV2Config,
        in_channels: int,
        channels: int,
        second: str = "none",
        second_channels: int = 0,
    ):
        super().__init__()
        bias = config.backbone.conv_bias
        self.second = second
        self.conv = ConvBN(in_channels, channels, 3, bias=bias)
        self.conv2 = None
        if second != "none":
            self.conv2 = ConvBN(channels, second_channels, 3, bias=bias)
            channels = second_channels
        dropout = nn.Dropout2d if config.dropout_kind == "channels" else MapDropout
        self.dropout = dropout(config.dropout)
        self.classifier = nn.Conv2d(channels, config.num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, H, W) for x, (B, C, H, W); twice as high and wide if "upsampled"."""
        x = self.conv(x)
        if self.conv2 is None:
            return self.classifier(self.dropout(x))
        if self.second == "plain":
            return self.classifier(self.dropout(self.conv2(x)))
        x = F.interpolate(self.dropout(x), scale_factor=2, mode="nearest")
        return self.classifier(self.conv2(x))


class BiSeNetV2(nn.Module):
    """Both branches, their aggregation, the head and the auxiliary heads.

    With `conv_init="torch"` everything starts with torch's defaults, as in the tutorial. With
    "kaiming" convolutions start at N(0, 2 / fan_out), biases at 0; mmsegmentation's classifiers
    at N(0, 0.01^2), and CoinCheung's last norm of every gather-and-expansion layer at scale 0.
    """

    def __init__(self, config: BiSeNetV2Config):
        super().__init__()
        self.config = config
        backbone = config.backbone
        self.backbone = Backbone(config)
        self.head = SegHead(config, backbone.out_channels, config.head_channels)
        self.aux_heads = nn.ModuleList()
        widths = zip(backbone.semantic_channels, config.aux_channels, AUX_STRIDES, strict=False)
        for in_channels, channels, stride in widths:
            second = stride**2 if config.aux_second == "upsampled" else channels
            self.aux_heads.append(SegHead(config, in_channels, channels, config.aux_second, second))
        _init_weights(self)

    def forward(self, images: Tensor, resize: bool = True, aux: bool = False) -> Output:
        """Segments images, (B, 3, H, W), normalised.

        Args:
            images: what sizes fit says `config.size_divisor`; square ones with fusion "matmul".
            resize: False leaves the logits at the heads' own resolution.
            aux: also run the auxiliary heads.

        Raises:
            ConfigError: images of a size that does not fit.
        """
        height, width = images.shape[2:]
        self.config.check_size((height, width))
        fused, *maps = self.backbone(images)
        logits = [self.head(fused)]
        if aux:
            logits += [head(x) for head, x in zip(self.aux_heads, maps, strict=False)]
        if resize:
            align_corners = self.config.align_corners
            logits = [
                F.interpolate(x, (height, width), mode="bilinear", align_corners=align_corners)
                for x in logits
            ]
        return Output(logits[0], tuple(logits[1:]))


def _init_weights(model: BiSeNetV2) -> None:
    config = model.config
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            _init_conv(module, config.backbone.conv_init)
        if isinstance(module, GatherExpand) and config.backbone.zero_init_residual:
            nn.init.zeros_(module.project.bn.weight)
    for module in model.modules():
        if isinstance(module, SegHead):
            _init_conv(module.classifier, config.classifier_init)


def _init_conv(conv: nn.Conv2d, init: str) -> None:
    if init == "torch":
        conv.reset_parameters()
        return
    if init == "kaiming":
        kaiming_normal_(conv.weight)
    else:
        nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
