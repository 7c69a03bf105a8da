"""ResNet encoder with dilated stages.

He et al. 2015, "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385,
with the stride in the 3x3 convolution. Shapes are those of torchvision's checkpoints.
"""

from torch import Tensor, nn

from flaxseg.models.resnet import EXPANSION, ResNetConfig
from torch_ref.blocks import ConvBN, kaiming_normal_


class Downsample(nn.Module):
    """Shortcut of a block that changes stride or channels: 1x1 convolution and norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, in, H, W), to (B, out, H / stride, W / stride)."""
        return self.bn(self.conv(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with norms, added to the shortcut."""

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, downsample: bool):
        super().__init__()
        out_channels = EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = Downsample(in_channels, out_channels, stride) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, in, H, W), to (B, 4 * width, H / stride, W / stride)."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return (y + shortcut).relu()


class Stage(nn.Module):
    """Bottlenecks of one width; the first one has the stride and projects its shortcut."""

    def __init__(self, config: ResNetConfig, index: int, in_channels: int):
        super().__init__()
        width = config.width * 2**index
        stride, dilation = config.strides[index], config.dilations[index]
        first_dilation = config.first_dilations[index]
        self.blocks = nn.ModuleList(
            [Bottleneck(in_channels, width, stride, first_dilation, downsample=True)]
        )
        for _ in range(1, config.blocks[index]):
            self.blocks.append(Bottleneck(EXPANSION * width, width, 1, dilation, downsample=False))

    def forward(self, x: Tensor) -> Tensor:
        """Runs the blocks on x, (B, C, H, W)."""
        for block in self.blocks:
            x = block(x)
        return x


class ResNet(nn.Module):
    """The stem, a 3x3 max pooling with stride 2, and the stages; no classifier.

    Convolutions start at N(0, 2 / fan_out), or with `conv_init="torch"` at torch's default, norms
    at scale 1 and shift 0, except that `zero_init_residual` starts the last norm of every block at
    scale 0.
    """

    def __init__(self, config: ResNetConfig):
        super().__init__()
        kernel_size = 7 if len(config.stem_channels) == 1 else 3
        channels = 3
        self.stem = nn.ModuleList()
        for i, width in enumerate(config.stem_channels):
            self.stem.append(ConvBN(channels, width, kernel_size, stride=2 if i == 0 else 1))
            channels = width
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=config.ceil_pool)
        self.stages = nn.ModuleList()
        for index, width in enumerate(config.out_channels):
            self.stages.append(Stage(config, index, channels))
            channels = width
        self._init_weights(config)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The output of every stage for images, (B, 3, H, W)."""
        x = images
        for layer in self.stem:
            x = layer(x)
        x = self.maxpool(x)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return tuple(outputs)

    def _init_weights(self, config: ResNetConfig) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and config.conv_init == "kaiming":
                kaiming_normal_(module.weight)
            if isinstance(module, Bottleneck) and config.zero_init_residual:
                nn.init.zeros_(module.bn3.weight)
