"""The two branches of BiSeNetV2: a wide and shallow one for detail, a narrow and deep one.

Yu et al. 2020, "BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic
Segmentation", https://arxiv.org/abs/2004.02147, sections 3 and 4.
"""

import torch
from torch import Tensor, nn

from flaxseg.models.bisenetv2_branches import BranchesConfig
from torch_ref.blocks import ConvBN


class SeparableConvBN(nn.Module):
    """Depthwise 3x3 convolution, 1x1 convolution, batch normalisation; nothing in between."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, bias: bool = True):
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=bias
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, in, H, W), to (B, out, H / stride, W / stride)."""
        return self.bn(self.pointwise(self.depthwise(x)))


def spatial_conv(
    config: BranchesConfig, channels: int, stride: int = 1, plain_activation: str = "none"
) -> SeparableConvBN | ConvBN:
    """A depthwise 3x3 convolution, separable or plain, with norm; the first has no activation."""
    bias = config.conv_bias
    if config.separable:
        return SeparableConvBN(channels, channels, stride, bias)
    return ConvBN(channels, channels, 3, stride, plain_activation, bias, groups=channels)


class Shortcut(nn.Module):
    """What a gather-and-expansion layer with a stride adds instead of its input."""

    def __init__(self, config: BranchesConfig, in_channels: int, out_channels: int):
        super().__init__()
        bias = config.conv_bias
        if config.separable:
            self.spatial = SeparableConvBN(in_channels, out_channels, 2, bias)
            self.project = ConvBN(out_channels, out_channels, 1, activation="none", bias=bias)
        else:
            self.spatial = ConvBN(
                in_channels, in_channels, 3, 2, activation="none", bias=bias, groups=in_channels
            )
            self.project = ConvBN(in_channels, out_channels, 1, activation="none", bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, in, H, W), to (B, out, H / 2, W / 2)."""
        return self.project(self.spatial(x))


class GatherExpand(nn.Module):
    """Gather-and-expansion layer: 3x3, depthwise to more channels, 1x1 back, plus the shortcut."""

    def __init__(self, config: BranchesConfig, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        inner = config.expansion * in_channels
        self.conv1 = ConvBN(in_channels, in_channels, 3, bias=config.conv_bias)
        self.expand = ConvBN(
            in_channels,
            inner,
            3,
            stride=1 if config.separable else stride,
            activation="relu" if config.separable or stride == 1 else "none",
            bias=config.conv_bias and stride == 1,
            groups=in_channels,
        )
        if config.separable:
            strides = [1] if stride == 1 else [2, 1]
        else:
            strides = [] if stride == 1 else [1]
        self.spatial = nn.ModuleList(
            spatial_conv(config, inner, s, plain_activation="relu") for s in strides
        )
        self.project = ConvBN(inner, out_channels, 1, activation="none")
        self.shortcut = Shortcut(config, in_channels, out_channels) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, in, H, W), to (B, out, H / stride, W / stride)."""
        y = self.conv1(x)
        y = self.expand(y)
        for layer in self.spatial:
            y = layer(y)
        y = self.project(y)
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return torch.relu(y + shortcut)


class Stem(nn.Module):
    """Quarters the image twice over, by convolution and by pooling, and fuses both."""

    def __init__(self, config: BranchesConfig):
        super().__init__()
        channels, bias = config.semantic_channels[0], config.conv_bias
        self.conv = ConvBN(3, channels, 3, stride=2, bias=bias)
        self.reduce = ConvBN(channels, channels // 2, 1, bias=bias)
        self.down = ConvBN(channels // 2, channels, 3, stride=2, bias=bias)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.fuse = ConvBN(2 * channels, channels, 3, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images, (B, 3, H, W), to (B, C, H / 4, W / 4)."""
        x = self.conv(images)
        down, pooled = self.down(self.reduce(x)), self.maxpool(x)
        return self.fuse(torch.cat([down, pooled], dim=1))


class ContextEmbedding(nn.Module):
    """Adds the mean over the map to each of its pixels, with norms and ReLUs."""

    def __init__(self, channels: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv_gap = ConvBN(channels, channels, 1)
        self.conv_last = ConvBN(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, C, H, W), to the same shape."""
        context = x.mean(dim=(2, 3), keepdim=True)
        context = self.conv_gap(self.bn(context))
        return self.conv_last(context + x)


class PlainContextEmbedding(nn.Module):
    """Adds the mean over the map to each of its pixels, without norms."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_gap = nn.Conv2d(channels, channels, 1)
        self.conv_last = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, C, H, W), to the same shape."""
        context = x.mean(dim=(2, 3), keepdim=True)
        context = self.conv_gap(context).relu()
        return self.conv_last(context + x)


class DetailBranch(nn.Module):
    """Plain 3x3 convolutions at high resolution."""

    def __init__(self, config: BranchesConfig):
        super().__init__()
        self.stages = nn.ModuleList()
        width = 3
        for channels, layers in zip(config.detail_channels, config.detail_layers, strict=True):
            stage = nn.ModuleList([ConvBN(width, channels, 3, stride=2, bias=config.conv_bias)])
            for _ in range(1, layers):
                stage.append(ConvBN(channels, channels, 3, bias=config.conv_bias))
            self.stages.append(stage)
            width = channels

    def forward(self, images: Tensor) -> Tensor:
        """Maps images, (B, 3, H, W), to (B, C, H / 8, W / 8)."""
        x = images
        for stage in self.stages:
            for layer in stage.children():
                x = layer(x)
        return x


class SemanticBranch(nn.Module):
    """The stem, three stages of gather-and-expansion layers and the context embedding."""

    def __init__(self, config: BranchesConfig):
        super().__init__()
        self.stem = Stem(config)
        self.stages = nn.ModuleList()
        width, *widths = config.semantic_channels
        for channels, layers in zip(widths, config.semantic_layers, strict=True):
            stage = nn.ModuleList([GatherExpand(config, width, channels, stride=2)])
            for _ in range(1, layers):
                stage.append(GatherExpand(config, channels, channels, stride=1))
            self.stages.append(stage)
            width = channels
        context = ContextEmbedding if config.context_norm else PlainContextEmbedding
        self.context = context(width)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The output of the stem, of every stage and of the context embedding."""
        x = self.stem(images)
        outputs = [x]
        for stage in self.stages:
            for layer in stage.children():
                x = layer(x)
            outputs.append(x)
        return (*outputs, self.context(x))
