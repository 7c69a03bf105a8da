"""Mix Transformer (MiT): the encoder of SegFormer, without position table.

Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with
Transformers", https://arxiv.org/abs/2105.15203, section 3.1.
"""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from flaxseg.models.mit import STD, MiTConfig
from torch_ref.blocks import DropPath, kaiming_normal_


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H * W, C) to (B, C, H, W)."""
    return x.transpose(1, 2).unflatten(2, size)


class PatchEmbed(nn.Module):
    """A strided convolution over overlapping patches, and a norm."""

    def __init__(self, config: MiTConfig, stage: int):
        super().__init__()
        kernel_size, stride = (7, 4) if stage == 0 else (3, 2)
        in_channels, width = (3, *config.widths)[stage], config.widths[stage]
        self.proj = nn.Conv2d(in_channels, width, kernel_size, stride, padding=kernel_size // 2)
        self.norm = nn.LayerNorm(width, eps=config.embed_norm_eps)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens, (B, N, C), of x, (B, in, H, W), and the size of their map."""
        x = self.proj(x)
        return self.norm(to_tokens(x)), (x.shape[2], x.shape[3])


class Attention(nn.Module):
    """Attention of every token to a reduced map (equation 2)."""

    def __init__(self, config: MiTConfig, stage: int):
        super().__init__()
        width, reduction = config.widths[stage], config.reductions[stage]
        self.heads = config.heads[stage]
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.sr = self.norm = None
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, stride=reduction)
            self.norm = nn.LayerNorm(width, eps=config.reduction_norm_eps)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps x, (B, N, C), the tokens of a map of this size, to the same shape."""
        reduced = x
        if self.sr is not None and self.norm is not None:
            reduced = self.norm(to_tokens(self.sr(to_map(x, size))))
        key, value = self.kv(reduced).chunk(2, dim=-1)
        query, key, value = (self._split_heads(t) for t in (self.q(x), key, value))
        energies = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        mixed = energies.softmax(dim=-1) @ value
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _split_heads(self, x: Tensor) -> Tensor:
        """(B, N, C) to (B, h, N, C / h)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class MixFFN(nn.Module):
    """An MLP with a depthwise convolution before its activation (equation 3)."""

    def __init__(self, config: MiTConfig, stage: int):
        super().__init__()
        width = config.widths[stage]
        hidden = config.mlp_ratio * width
        self.fc1 = nn.Linear(width, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps x, (B, N, C), the tokens of a map of this size, to the same shape."""
        x = self.dwconv(to_map(self.fc1(x), size))
        return self.fc2(F.gelu(to_tokens(x)))


class Block(nn.Module):
    """Attention and MLP, each normalised before and added to its input."""

    def __init__(self, config: MiTConfig, stage: int, drop_path: float):
        super().__init__()
        width = config.widths[stage]
        self.norm1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.attn = Attention(config, stage)
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp = MixFFN(config, stage)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps x, (B, N, C), the tokens of a map of this size, to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x), size))


class Stage(nn.Module):
    """Patch embedding, blocks of one width, norm."""

    def __init__(self, config: MiTConfig, stage: int):
        super().__init__()
        self.patch_embed = PatchEmbed(config, stage)
        rates = config.drop_path_rates(stage)
        self.blocks = nn.ModuleList(Block(config, stage, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.widths[stage], eps=config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (B, in, H, W), to (B, C, ceil(H / stride), ceil(W / stride))."""
        tokens, size = self.patch_embed(x)
        for block in self.blocks:
            tokens = block(tokens, size)
        return to_map(self.norm(tokens), size)


class MiT(nn.Module):
    """The stages; no classifier.

    Norms start at scale 1 and shift 0, biases at 0, weights as `conv_init` and `linear_init` say.
    """

    def __init__(self, config: MiTConfig):
        super().__init__()
        self.stages = nn.ModuleList(Stage(config, i) for i in range(len(config.widths)))
        for module in self.modules():
            init_layer(module, config)
        if config.linear_init == "xavier_he":
            for module in self.modules():
                _init_like_joined_layers(module)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The normalised output of every stage for images, (B, 3, H, W)."""
        x = images
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return tuple(outputs)


def init_layer(module: nn.Module, config: MiTConfig) -> None:
    """Draws the weights of a linear layer or convolution; leaves other modules alone."""
    if not isinstance(module, nn.Linear | nn.Conv2d):
        return
    if isinstance(module, nn.Linear) or config.conv_init == "normal":
        nn.init.normal_(module.weight, std=STD)
    else:
        fan_out = math.prod(module.kernel_size) * module.out_channels
        groups = module.groups if config.conv_init == "he_groups" else 1
        nn.init.normal_(module.weight, std=math.sqrt(2 * groups / fan_out))
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _init_like_joined_layers(module: nn.Module) -> None:
    """Query, key and value as if they were one matrix, the MLP's layers as 1x1 convolutions."""
    if isinstance(module, Attention):
        width = module.q.in_features
        bound = math.sqrt(6 / (width + 3 * width))
        nn.init.uniform_(module.q.weight, -bound, bound)
        nn.init.uniform_(module.kv.weight, -bound, bound)
    elif isinstance(module, MixFFN):
        kaiming_normal_(module.fc1.weight)
        kaiming_normal_(module.fc2.weight)
