"""What every network shares: its output type and convolution with norm."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Output(NamedTuple):
    """What a network returns.

    Attributes:
        logits: (B, K, H, W).
        aux: logits of the auxiliary heads in published order; empty unless asked for.
    """

    logits: Tensor
    aux: tuple[Tensor, ...] = ()


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": torch.relu,
    "leaky_relu": functional.leaky_relu,
}


class DropPath(nn.Module):
    """Zeroes whole samples of a residual branch (https://arxiv.org/abs/1603.09382)."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, ...), to the same shape; survivors are divided by 1 - p."""
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.p
        return torch.where(keep, x / (1 - self.p), 0.0)


class MapDropout(nn.Dropout):
    """`nn.Dropout` on a channels-first map, (B, C, H, W): single values, not whole channels."""


def kaiming_normal_(weight: Tensor) -> None:
    """N(0, 2 / fan_out) (He et al. 2015), for layers before a ReLU."""
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")


class ConvBN(nn.Module):
    """Convolution, without bias unless asked for, batch normalisation, activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        activation: str = "relu",
        bias: bool = False,
        groups: int = 1,
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=bias,
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, in, H, W), to (B, out, H', W')."""
        return ACTIVATIONS[self.activation](self.bn(self.conv(x)))
