"""What every network shares: its output type and convolution with norm."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Output(NamedTuple):
    """What a network returns.

    Attributes:
        logits: (B, K, H, W).
        aux: logits of the auxiliary heads in published order; empty unless asked for.
    """

    logits: Tensor
    aux: tuple[Tensor, ...] = ()


ACTIVATIONS = {"none": lambda x: x, "relu": torch.relu}


def kaiming_normal_(weight: Tensor) -> None:
    """N(0, 2 / fan_out) (He et al. 2015), for layers before a ReLU."""
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")


class ConvBN(nn.Module):
    """Convolution without bias, batch normalisation, activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        activation: str = "relu",
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, in, H, W), to (B, out, H', W')."""
        return ACTIVATIONS[self.activation](self.bn(self.conv(x)))
