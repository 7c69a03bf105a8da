"""The heads of SETR: enlarge one map of patches step by step, or several of them together.

Zheng et al. 2020, https://arxiv.org/abs/2012.15840, section 3.3. The naive and the progressive
upsampling head are one module; multi-level aggregation is a neck and a head.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_ref.blocks import ConvBN, kaiming_normal_


class UpHead(nn.Module):
    """Convolutions with norm and ReLU, an interpolation after each, and a classifier."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_classes: int,
        scales: Sequence[int],
        kernel_size: int,
        conv_bias: bool,
        classifier_kernel: int,
        classifier_bias: bool,
        align_corners: bool,
        norm_eps: float | None,
        head_init: str,
    ):
        """Args as in `SETRConfig`; `norm_eps` None: no norm; no scales: the classifier alone."""
        super().__init__()
        self.norm = None if norm_eps is None else nn.LayerNorm(in_channels, eps=norm_eps)
        self.convs = nn.ModuleList()
        for _ in scales:
            self.convs.append(ConvBN(in_channels, channels, kernel_size, bias=conv_bias))
            in_channels = channels
        self.classifier = _classifier(in_channels, num_classes, classifier_kernel, classifier_bias)
        self.scales = scales
        self.align_corners = align_corners
        if head_init == "kaiming":
            _init_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, s * H, s * W), s the product of the scales, of a map x, (B, C, H, W)."""
        if self.norm is not None:
            x = _norm_channels(self.norm, x)
        for conv, scale in zip(self.convs, self.scales, strict=True):
            x = _enlarge(conv(x), scale, self.align_corners)
        return self.classifier(x)


class MLANeck(nn.Module):
    """Reduces every level, adds up from the deepest to the shallowest, convolves every sum."""

    def __init__(
        self,
        levels: int,
        in_channels: int,
        channels: int,
        norm_eps: float,
        deepest_first: bool,
        head_init: str,
    ):
        super().__init__()
        each = range(levels)
        self.norms = nn.ModuleList(nn.LayerNorm(in_channels, eps=norm_eps) for _ in each)
        self.projs = nn.ModuleList(ConvBN(in_channels, channels, 1) for _ in each)
        self.convs = nn.ModuleList(ConvBN(channels, channels, 3) for _ in each)
        self.deepest_first = deepest_first
        if head_init == "kaiming":
            _init_kaiming(self)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """As many maps, (B, channels, H, W), as come in, (B, C, H, W), the shallowest first."""
        reduced = []
        for norm, proj, x in zip(self.norms, self.projs, maps, strict=True):
            reduced.append(proj(_norm_channels(norm, x)))
        sums = [reduced[-1]]
        for x in reduced[-2::-1]:
            sums.append(sums[-1] + x)
        if not self.deepest_first:
            sums = sums[::-1]
        return tuple(conv(x) for conv, x in zip(self.convs, sums, strict=True))


class Branch(nn.Module):
    """Two 3x3 convolutions with norm and ReLU."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv1 = ConvBN(in_channels, channels, 3)
        self.conv2 = ConvBN(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, C, H, W), to (B, channels, H, W)."""
        return self.conv2(self.conv1(x))


class MLAHead(nn.Module):
    """A branch for every level, enlarged; all of them concatenated and classified."""

    def __init__(
        self,
        levels: int,
        in_channels: int,
        channels: int,
        num_classes: int,
        scale: int,
        classifier_kernel: int,
        align_corners: bool,
        head_init: str,
    ):
        super().__init__()
        self.branches = nn.ModuleList(Branch(in_channels, channels) for _ in range(levels))
        self.classifier = _classifier(levels * channels, num_classes, classifier_kernel, True)
        self.scale = scale
        self.align_corners = align_corners
        if head_init == "kaiming":
            _init_kaiming(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (B, K, scale * H, scale * W) of maps (B, C, H, W)."""
        parts = []
        for branch, x in zip(self.branches, maps, strict=True):
            parts.append(_enlarge(branch(x), self.scale, self.align_corners))
        return self.classifier(torch.cat(parts, dim=1))


def _classifier(in_channels: int, num_classes: int, kernel_size: int, bias: bool) -> nn.Conv2d:
    padding = kernel_size // 2
    return nn.Conv2d(in_channels, num_classes, kernel_size, padding=padding, bias=bias)


def _norm_channels(norm: nn.Module, x: Tensor) -> Tensor:
    """A layer norm over the channels of every pixel of x, (B, C, H, W)."""
    return norm(x.movedim(1, -1)).movedim(-1, 1)


def _enlarge(x: Tensor, scale: int, align_corners: bool) -> Tensor:
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=align_corners)


def _init_kaiming(head: nn.Module) -> None:
    """Normalised convolutions from N(0, 2 / fan_out), classifiers from N(0, 0.01^2), bias 0."""
    for module in head.modules():
        if isinstance(module, ConvBN):
            kaiming_normal_(module.conv.weight)
    if isinstance(head, UpHead | MLAHead):
        nn.init.normal_(head.classifier.weight, std=0.01)
        if head.classifier.bias is not None:
            nn.init.zeros_(head.classifier.bias)
