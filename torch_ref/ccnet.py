"""CCNet: a dilated ResNet whose head gathers context along rows and columns, twice.

Huang et al. 2019, "CCNet: Criss-Cross Attention for Semantic Segmentation",
https://arxiv.org/abs/1811.11721. `CCNetConfig` says what the published networks do differently:
the tutorial's, mmsegmentation's ccnet_r50-d8 and ccnet_r101-d8, and the authors' own.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flaxseg.models.ccnet import AUX_STAGE, CCNetConfig
from torch_ref.blocks import ConvBN, Output, kaiming_normal_
from torch_ref.resnet import ResNet


class CrissCrossAttention(nn.Module):
    """x + gamma * attention(x), with attention along each pixel's row and column.

    `gamma` starts at 0, which makes a fresh module the identity.
    """

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.query = nn.Conv2d(channels, channels // reduction, 1)
        self.key = nn.Conv2d(channels, channels // reduction, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, C, H, W), to the same shape."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        column = torch.einsum("bchw,bcgw->bhwg", query, key)
        row = torch.einsum("bchw,bchv->bhwv", query, key)

        # The pixel stands in its column and in its row, and is to count once: in the row.
        H = x.shape[2]
        itself = torch.eye(H, dtype=torch.bool, device=x.device)[:, None, :]
        column = column.masked_fill(itself, -torch.inf)

        weights = torch.cat([column, row], dim=-1).softmax(dim=-1)
        column, row = weights[..., :H], weights[..., H:]
        out = torch.einsum("bhwg,bcgw->bchw", column, value)
        out = out + torch.einsum("bhwv,bchv->bchw", row, value)
        return self.gamma * out + x


class ConvOut(nn.Module):
    """The bare convolution after the attention, for heads that do not normalise it."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, C, H, W), to the same shape."""
        return self.conv(x)


class CCHead(nn.Module):
    """Reduce, attend, concatenate with the encoder's map, fuse, classify."""

    def __init__(self, config: CCNetConfig, in_channels: int):
        super().__init__()
        channels, activation = config.channels, config.activation
        self.conv_in = ConvBN(in_channels, channels, 3, activation=activation)
        self.cca = CrissCrossAttention(channels, config.reduction)
        if config.out_norm:
            self.conv_out = ConvBN(channels, channels, 3, activation=activation)
        else:
            self.conv_out = ConvOut(channels)
        self.fuse = ConvBN(in_channels + channels, channels, 3, activation=activation)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(channels, config.num_classes, 1)
        self.recurrence = config.recurrence
        if config.head_init == "kaiming":
            _init_head(self)

    def forward(self, x: Tensor) -> Tensor:
        """What the classifier reads, (B, channels, H, W), for the encoder's map x."""
        y = self.conv_in(x)
        for _ in range(self.recurrence):
            y = self.cca(y)
        y = self.conv_out(y)
        y = self.fuse(torch.cat([x, y], dim=1))
        return self.dropout(y)


class FCNHead(nn.Module):
    """One 3x3 convolution and a classifier, for deep supervision."""

    def __init__(self, config: CCNetConfig, in_channels: int):
        super().__init__()
        self.conv = ConvBN(
            in_channels,
            config.aux_channels,
            3,
            activation=config.aux_activation,
            bias=config.aux_bias,
        )
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.aux_channels, config.num_classes, 1)
        if config.head_init == "kaiming":
            _init_head(self)

    def forward(self, x: Tensor) -> Tensor:
        """What the classifier reads, (B, aux_channels, H, W), for the encoder's map x."""
        return self.dropout(self.conv(x))


class CCNet(nn.Module):
    """The encoder, the criss-cross head and, in some variants, an auxiliary head.

    With `head_init="torch"` the heads start with torch's defaults, as the tutorial's does. With
    "kaiming" they start like mmsegmentation's: convolutions with a norm at N(0, 2 / fan_out),
    classifiers at N(0, 0.01^2) with bias 0, query, key and value with torch's defaults.
    """

    def __init__(self, config: CCNetConfig):
        super().__init__()
        self.config = config
        channels = config.backbone.out_channels
        self.backbone = ResNet(config.backbone)
        self.head = CCHead(config, channels[-1])
        self.aux_head = FCNHead(config, channels[AUX_STAGE]) if config.aux_channels else None

    def forward(self, images: Tensor, resize: bool = True, aux: bool = False) -> Output:
        """Segments images, (B, 3, H, W), normalised.

        Args:
            images: any H and W.
            resize: False leaves the logits at the heads' own resolution.
            aux: also run the auxiliary head.
        """
        stages = self.backbone(images)
        size = images.shape[2:] if resize else None
        logits = self._classify(self.head, stages[-1], size)
        if not aux or self.aux_head is None:
            return Output(logits)
        return Output(logits, (self._classify(self.aux_head, stages[AUX_STAGE], size),))

    def _classify(self, head: CCHead | FCNHead, x: Tensor, size: torch.Size | None) -> Tensor:
        """Logits of one head, enlarged where the published network enlarges."""
        y = head(x)
        if size is None:
            return head.classifier(y)
        align_corners = self.config.align_corners
        if self.config.upsample == "x8":
            y = F.interpolate(y, scale_factor=8, mode="bilinear", align_corners=align_corners)
            return head.classifier(y)
        logits = head.classifier(y)
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


def _init_head(head: CCHead | FCNHead) -> None:
    for module in head.children():
        if isinstance(module, ConvBN | ConvOut):
            kaiming_normal_(module.conv.weight)
    weight, bias = head.classifier.parameters()
    nn.init.normal_(weight, std=0.01)
    nn.init.zeros_(bias)
