"""Vision Transformer: the encoder of SETR, and the blocks of every plain ViT.

Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flaxseg.models.vit import ViTConfig


class PatchEmbed(nn.Module):
    """Cuts images into square patches and maps each to a token."""

    def __init__(self, patch_size: int, width: int, bias: bool = True):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (B, h * w, width), row by row, of images (B, 3, h * patch, w * patch)."""
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention: softmax(q k^T / sqrt(d)) v in every head."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        head_dim: int = 0,
        qkv_bias: bool = True,
        attn_dropout: float = 0.0,
        proj_dropout: float = 0.0,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim or width // num_heads
        inner = num_heads * self.head_dim
        self.qkv = nn.Linear(width, 3 * inner, bias=qkv_bias)
        self.attn_dropout = nn.Dropout(attn_dropout)
        self.proj = nn.Linear(inner, width)
        self.proj_dropout = nn.Dropout(proj_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens x, (B, N, width), to the same shape."""
        query, key, value = (self._heads(part) for part in self.qkv(x).chunk(3, dim=-1))
        energies = query @ key.transpose(-2, -1) / self.head_dim**0.5
        weights = self.attn_dropout(energies.softmax(dim=-1))
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        return self.proj_dropout(self.proj(mixed))

    def _heads(self, x: Tensor) -> Tensor:
        """(B, N, h * d) as (B, h, N, d)."""
        B, N, _ = x.shape
        return x.view(B, N, self.num_heads, self.head_dim).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int, hidden_dropout: float = 0.0, dropout: float = 0.0):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.hidden_dropout = nn.Dropout(hidden_dropout)
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, (..., width), to the same shape."""
        x = self.hidden_dropout(F.gelu(self.fc1(x)))
        return self.dropout(self.fc2(x))


class Block(nn.Module):
    """Attention and MLP, each on normalised tokens and added to them."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_dim: int,
        norm_eps: float,
        head_dim: int = 0,
        qkv_bias: bool = True,
        attn_dropout: float = 0.0,
        proj_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        mlp_dropout: float = 0.0,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, num_heads, head_dim, qkv_bias, attn_dropout, proj_dropout)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, mlp_dim, hidden_dropout, mlp_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens x, (B, N, width), to the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches, class token, positions, blocks; no final norm.

    `ViTConfig.init` says how the weights start: norms always at scale 1 and shift 0, class token
    and positions at N(0, 1) with "torch", else at N(0, 0.02^2).
    """

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = config
        width = config.width
        rows, cols = config.grid
        self.patch_embed = PatchEmbed(config.patch_size, width, bias=config.patch_bias)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + rows * cols, width))
        self.embed_dropout = nn.Dropout(config.embed_dropout)
        self.blocks = nn.ModuleList(
            Block(
                width,
                config.num_heads,
                config.mlp_dim,
                config.norm_eps,
                head_dim=config.head_dim,
                qkv_bias=config.qkv_bias,
                attn_dropout=config.attn_dropout,
                proj_dropout=config.dropout,
                hidden_dropout=config.dropout,
                mlp_dropout=config.dropout,
            )
            for _ in range(config.depth)
        )
        if config.init != "torch":
            _init_published(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps (B, width, h, w) behind the blocks of `out_indices`, without the class token.

        Args:
            images: (B, 3, H, W), where h = ceil(H / patch_size) and w = ceil(W / patch_size);
                `image_size`, unless positions are resized.
        """
        images, grid = self._whole_patches(images)
        tokens = self.patch_embed(images)
        first = self.cls_token.expand(len(images), -1, -1)
        x = torch.cat([first, tokens], dim=1) + self._positions(grid)
        x = self.embed_dropout(x)
        if self.config.class_token == "drop":
            x = x[:, 1:]
        outputs = {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            outputs[index] = x
        return tuple(self._map(outputs[index], grid) for index in self.config.out_indices)

    def _whole_patches(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images padded at the bottom and right, and their grid of patches."""
        height, width = images.shape[2:]
        patch = self.config.patch_size
        images = F.pad(images, (0, -width % patch, 0, -height % patch))
        return images, (images.shape[2] // patch, images.shape[3] // patch)

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """The table for a grid of patches, (1, 1 + h * w, width)."""
        rows, cols = self.config.grid
        # As published, the number of tokens decides: another shape with as many is not resized.
        if grid[0] * grid[1] == rows * cols:
            return self.pos_embed
        first, patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        patches = patches.transpose(1, 2).unflatten(2, (rows, cols))
        patches = F.interpolate(patches, size=grid, mode="bilinear", align_corners=False)
        return torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1)

    def _map(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.config.class_token == "keep":
            tokens = tokens[:, 1:]
        return tokens.transpose(1, 2).unflatten(2, grid)


def _init_published(model: ViT) -> None:
    """Inits "timm" and "jax"; the latter treats the patches, qkv and the MLP's biases apart."""
    nn.init.normal_(model.cls_token, std=0.02)
    nn.init.normal_(model.pos_embed, std=0.02)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if model.config.init == "timm":
        return
    nn.init.kaiming_normal_(model.patch_embed.proj.weight, mode="fan_in", nonlinearity="relu")
    if model.patch_embed.proj.bias is not None:
        nn.init.zeros_(model.patch_embed.proj.bias)
    for block in model.blocks:
        assert isinstance(block, Block)
        nn.init.xavier_uniform_(block.attn.qkv.weight)
        nn.init.normal_(block.mlp.fc1.bias, std=1e-6)
        nn.init.normal_(block.mlp.fc2.bias, std=1e-6)
