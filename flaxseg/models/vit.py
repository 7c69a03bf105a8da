"""Vision Transformer: the encoder of SETR, and the blocks of every plain ViT.

Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929. Names
and shapes are timm's; there is no final norm and no classifier.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg import ops
from flaxseg.models.blocks import checkpointed, require
from flaxseg.ops import initializers as init

IMAGE_CHANNELS = 3

LinearInit = tuple[init.Initializer, init.Initializer | None]
"""Initialisers of a layer's weight and bias; None is torch's default bias."""


class BlockInit(NamedTuple):
    """Initialisers of the linear layers of a block; torch's defaults."""

    qkv: LinearInit = (init.torch_default, None)
    proj: LinearInit = (init.torch_default, None)
    mlp: LinearInit = (init.torch_default, None)


class ViTInit(NamedTuple):
    """Initialisers of an encoder; torch's defaults, and N(0, 1) for class token and positions."""

    patch: LinearInit = (init.torch_default, None)
    tokens: init.Initializer = init.normal(1.0)
    block: BlockInit = BlockInit()


_SMALL: LinearInit = (init.normal(0.02), init.zeros)

INITS = {
    "torch": ViTInit(),
    "timm": ViTInit(tokens=init.normal(0.02), block=BlockInit(_SMALL, _SMALL, _SMALL)),
    "jax": ViTInit(
        patch=(init.kaiming_normal_fan_in, init.zeros),
        tokens=init.normal(0.02),
        block=BlockInit(
            qkv=(init.xavier_uniform, init.zeros),
            proj=_SMALL,
            mlp=(init.normal(0.02), init.normal(1e-6)),
        ),
    ),
}
"""What `ViTConfig.init` may say."""


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Size and design choices of a plain ViT encoder.

    Attributes:
        image_size: (H, W) that the table of positions is made for.
        patch_size: side of the square patches.
        width: channels of a token.
        depth: blocks.
        num_heads: heads of each attention.
        head_dim: channels of a head; 0 is width // num_heads.
        mlp_dim: hidden channels of each block's MLP.
        qkv_bias: queries, keys and values have a bias.
        patch_bias: the patch embedding has a bias.
        norm_eps: of every layer norm.
        class_token: "keep" carries it through the blocks; "drop" removes it before them, once
            the positions are added.
        out_indices: blocks whose outputs are returned, counted from 0.
        resize_positions: "none" takes images of `image_size` alone; "bilinear" takes any, pads
            them with zeros at the bottom and right to whole patches, and interpolates the table.
        embed_dropout: rate behind the positions.
        dropout: rate behind the attention's projection and both layers of the MLP.
        attn_dropout: rate of attention weights.
        init: "torch" is torch's defaults and N(0, 1) for class token and positions; "timm" draws
            those and linear weights from N(0, 0.02^2); "jax" is "timm" with Xavier's rule for
            queries, keys and values, He's for patches, and biases from N(0, 1e-12) in the MLP.
    """

    image_size: tuple[int, int] = (256, 256)
    patch_size: int = 16
    width: int = 1024
    depth: int = 24
    num_heads: int = 16
    head_dim: int = 0
    mlp_dim: int = 2048
    qkv_bias: bool = False
    patch_bias: bool = True
    norm_eps: float = 1e-5
    class_token: Literal["keep", "drop"] = "keep"
    out_indices: tuple[int, ...] = (9, 14, 19, 23)
    resize_positions: Literal["none", "bilinear"] = "none"
    embed_dropout: float = 0.0
    dropout: float = 0.0
    attn_dropout: float = 0.0
    init: Literal["torch", "timm", "jax"] = "torch"

    def __post_init__(self):
        for name in ("patch_size", "width", "depth", "num_heads", "mlp_dim"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        fits = len(self.image_size) == 2 and all(
            side >= 1 and side % self.patch_size == 0 for side in self.image_size
        )
        expected = f"(H, W), multiples of the patch size {self.patch_size}"
        require(fits, "image_size", self.image_size, expected)
        fits = self.head_dim > 0 or (self.head_dim == 0 and self.width % self.num_heads == 0)
        expected = f"1 or more, or 0 where {self.num_heads} heads share {self.width} channels"
        require(fits, "head_dim", self.head_dim, expected)
        fits = len(self.out_indices) > 0 and set(self.out_indices) <= set(range(self.depth))
        expected = f"blocks from 0 to {self.depth - 1}"
        require(fits, "out_indices", self.out_indices, expected)
        require(self.norm_eps > 0, "norm_eps", self.norm_eps, "above 0")
        for name in ("embed_dropout", "dropout", "attn_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "0 to below 1")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the table of positions."""
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size


class PatchEmbed(nnx.Module):
    """Cuts images into square patches and maps each to a token."""

    def __init__(
        self,
        patch_size: int,
        width: int,
        *,
        bias: bool = True,
        inits: LinearInit = (init.torch_default, None),
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.proj = ops.Conv(
            IMAGE_CHANNELS,
            width,
            patch_size,
            stride=patch_size,
            bias=bias,
            weight_init=inits[0],
            bias_init=inits[1],
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        """Tokens (B, h * w, width), row by row, of images (B, h * patch, w * patch, 3)."""
        B, H, W, C = images.shape
        p, dtype = self.proj.stride, self.proj.dtype
        patches = images.reshape(B, H // p, p, W // p, p, C).transpose(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(B, (H // p) * (W // p), p * p * C)
        # Patches do not overlap: the strided convolution is one matrix product, which XLA:CPU
        # runs faster than a convolution.
        weight = self.proj.weight[...].reshape(p * p * C, -1)
        tokens = jnp.dot(patches.astype(dtype), weight.astype(dtype))
        bias = self.proj.bias
        return tokens if bias is None else tokens + bias[...].astype(dtype)


class Attention(nnx.Module):
    """Multi-head self-attention."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        head_dim: int = 0,
        qkv_bias: bool = True,
        attn_dropout: float = 0.0,
        proj_dropout: float = 0.0,
        inits: BlockInit | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kwargs = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        inits = inits or BlockInit()
        self.num_heads = num_heads
        inner = num_heads * (head_dim or width // num_heads)
        self.qkv = _linear(width, 3 * inner, inits.qkv, bias=qkv_bias, **kwargs)
        self.attn_dropout = ops.Dropout(attn_dropout)
        self.proj = _linear(inner, width, inits.proj, **kwargs)
        self.proj_dropout = ops.Dropout(proj_dropout)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps tokens x, (B, N, width), to the same shape."""
        B, N, _ = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, -1)
        query, key, value = qkv.transpose(2, 0, 3, 1, 4)  # (B, h, N, d) each
        drop = functools.partial(self.attn_dropout, rngs=rngs) if self.attn_dropout.active else None
        mixed = ops.attention(query, key, value, dropout=drop)
        mixed = mixed.transpose(0, 2, 1, 3).reshape(B, N, -1)
        return self.proj_dropout(self.proj(mixed), rngs)


class Mlp(nnx.Module):
    """Two linear layers with a GELU between them."""

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        hidden_dropout: float = 0.0,
        dropout: float = 0.0,
        inits: BlockInit | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kwargs = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        inits = inits or BlockInit()
        self.fc1 = _linear(width, hidden, inits.mlp, **kwargs)
        self.hidden_dropout = ops.Dropout(hidden_dropout)
        self.fc2 = _linear(hidden, width, inits.mlp, **kwargs)
        self.dropout = ops.Dropout(dropout)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps x, (..., width), to the same shape."""
        x = self.hidden_dropout(ops.gelu(self.fc1(x)), rngs)
        return self.dropout(self.fc2(x), rngs)


class Block(nnx.Module):
    """Attention and MLP, each on normalised tokens and added to them."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_dim: int,
        *,
        norm_eps: float,
        head_dim: int = 0,
        qkv_bias: bool = True,
        attn_dropout: float = 0.0,
        proj_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        mlp_dropout: float = 0.0,
        inits: BlockInit | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes = {"dtype": dtype, "param_dtype": param_dtype}
        self.norm1 = ops.LayerNorm(width, eps=norm_eps, **dtypes)
        self.attn = Attention(
            width,
            num_heads,
            head_dim=head_dim,
            qkv_bias=qkv_bias,
            attn_dropout=attn_dropout,
            proj_dropout=proj_dropout,
            inits=inits,
            rngs=rngs,
            **dtypes,
        )
        self.norm2 = ops.LayerNorm(width, eps=norm_eps, **dtypes)
        self.mlp = Mlp(
            width,
            mlp_dim,
            hidden_dropout=hidden_dropout,
            dropout=mlp_dropout,
            inits=inits,
            rngs=rngs,
            **dtypes,
        )

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps tokens x, (B, N, width), to the same shape."""
        x = x + self.attn(self.norm1(x), rngs)
        return x + self.mlp(self.norm2(x), rngs)


class ViT(nnx.Module):
    """Patches, class token, positions, blocks.

    With `remat` every block's activations are computed again for the gradient, not kept.
    """

    def __init__(
        self,
        config: ViTConfig,
        *,
        remat: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kwargs = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        inits = INITS[config.init]
        self.config = config
        self.remat = remat
        self.dtype = dtype
        self.patch_embed = PatchEmbed(
            config.patch_size, config.width, bias=config.patch_bias, inits=inits.patch, **kwargs
        )
        rows, cols = config.grid
        shapes = (1, 1, config.width), (1, 1 + rows * cols, config.width)
        tokens = (inits.tokens(rngs.params(), shape, param_dtype) for shape in shapes)
        self.cls_token, self.pos_embed = map(nnx.Param, tokens)
        self.embed_dropout = ops.Dropout(config.embed_dropout)
        self.blocks = nnx.List(_block(config, **kwargs) for _ in range(config.depth))

    def __call__(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> tuple[jax.Array, ...]:
        """The maps (B, h, w, width) behind the blocks of `out_indices`, without the class token.

        Args:
            images: (B, H, W, 3), where h = ceil(H / patch_size) and w = ceil(W / patch_size);
                `image_size`, unless positions are resized.
            rngs: keys of the "dropout" stream.
        """
        x, grid = self.embed(images, rngs)
        outputs = {}
        for index, block in enumerate(self.blocks):
            x = checkpointed(self.remat, block, x, rngs)
            outputs[index] = x
        return tuple(self._map(outputs[index], grid) for index in self.config.out_indices)

    def embed(
        self, images: jax.Array, rngs: nnx.Rngs | None = None
    ) -> tuple[jax.Array, tuple[int, int]]:
        """What the first block reads, (B, N, width), and the grid of its patches."""
        images = self._whole_patches(images)
        B, H, W, _ = images.shape
        grid = H // self.config.patch_size, W // self.config.patch_size
        tokens = self.patch_embed(images)
        first = jnp.broadcast_to(self.cls_token[...], (B, 1, tokens.shape[-1]))
        tokens = jnp.concatenate([first.astype(self.dtype), tokens], 1)
        tokens = self.embed_dropout(tokens + self.positions(grid).astype(self.dtype), rngs)
        return (tokens[:, 1:] if self.config.class_token == "drop" else tokens), grid

    def _whole_patches(self, images: jax.Array) -> jax.Array:
        height, width = images.shape[1:3]
        patch = self.config.patch_size
        return jnp.pad(images, ((0, 0), (0, -height % patch), (0, -width % patch), (0, 0)))

    def positions(self, grid: tuple[int, int]) -> jax.Array:
        """The table for a grid of patches, (1, 1 + h * w, width)."""
        table = self.pos_embed[...]
        rows, cols = self.config.grid
        # As published, the number of tokens decides: another shape with as many is not resized.
        if grid[0] * grid[1] == rows * cols:
            return table
        patches = table[:, 1:].reshape(1, rows, cols, -1)
        patches = ops.resize_bilinear(patches, grid).reshape(1, grid[0] * grid[1], -1)
        return jnp.concatenate([table[:, :1], patches], 1)

    def _map(self, tokens: jax.Array, grid: tuple[int, int]) -> jax.Array:
        if self.config.class_token == "keep":
            tokens = tokens[:, 1:]
        return tokens.reshape(len(tokens), *grid, -1)


def _block(config: ViTConfig, **kwargs) -> Block:
    return Block(
        config.width,
        config.num_heads,
        config.mlp_dim,
        norm_eps=config.norm_eps,
        head_dim=config.head_dim,
        qkv_bias=config.qkv_bias,
        attn_dropout=config.attn_dropout,
        proj_dropout=config.dropout,
        hidden_dropout=config.dropout,
        mlp_dropout=config.dropout,
        inits=INITS[config.init].block,
        **kwargs,
    )


def _linear(
    in_features: int, out_features: int, inits: LinearInit, *, bias: bool = True, **kwargs
) -> ops.Linear:
    weight_init, bias_init = inits
    return ops.Linear(
        in_features, out_features, bias=bias, weight_init=weight_init, bias_init=bias_init, **kwargs
    )
