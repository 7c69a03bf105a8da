"""Mix Transformer (MiT): the encoder of SegFormer, without position table.

Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with
Transformers", https://arxiv.org/abs/2105.15203, section 3.1. Every stage shrinks the map with an
overlapping convolution and runs transformer blocks whose keys and values come from a reduced map.
A depthwise convolution inside each block's MLP tells the tokens where they are.
"""

import dataclasses
import math
from typing import Literal

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg import ops
from flaxseg.models.blocks import checkpointed, require
from flaxseg.ops import canvas
from flaxseg.ops import initializers as init

STD = 0.02
"""Of freshly drawn linear layers. Published code cuts at 100 times this, which cuts nothing."""


@dataclasses.dataclass(frozen=True)
class MiTConfig:
    """Widths, depths and design choices of a Mix Transformer.

    Attributes:
        widths: channels of each stage.
        depths: blocks of each stage.
        heads: attention heads of each stage.
        reductions: of each stage; a key stands for a square of this many tokens a side.
        mlp_ratio: hidden channels of a block's MLP over its own.
        embed_norm_eps: of the norms after the patch embeddings.
        reduction_norm_eps: of the norms of reduced tokens.
        norm_eps: of the other norms, in blocks and behind each stage.
        drop_path: rate at which the last block's branches are dropped; from 0 in the first block
            it grows evenly.
        conv_init: "he" draws from N(0, 2 / fan_out), counting all output channels in fan_out even
            for depthwise kernels; "he_groups" divides fan_out by the groups; "normal" draws from
            N(0, 0.02^2).
        linear_init: "normal" draws from N(0, 0.02^2); "xavier_he" draws query, key and value as
            one matrix with Xavier's rule and the MLP's layers from N(0, 2 / fan_out).
    """

    widths: tuple[int, ...] = (32, 64, 160, 256)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (1, 2, 5, 8)
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    mlp_ratio: int = 4
    embed_norm_eps: float = 1e-5
    reduction_norm_eps: float = 1e-5
    norm_eps: float = 1e-5
    drop_path: float = 0.1
    conv_init: Literal["he", "he_groups", "normal"] = "he"
    linear_init: Literal["normal", "xavier_he"] = "normal"

    def __post_init__(self):
        for name in ("widths", "depths", "heads", "reductions"):
            values = getattr(self, name)
            require(len(values) == len(self.widths), name, values, "one value a stage, as widths")
            require(min(values, default=0) >= 1, name, values, "whole numbers from 1 on")
        fits = all(w % h == 0 for w, h in zip(self.widths, self.heads, strict=True))
        require(fits, "heads", self.heads, f"divisors of widths, {self.widths}")
        require(self.mlp_ratio >= 1, "mlp_ratio", self.mlp_ratio, "at least 1")
        for name in ("embed_norm_eps", "reduction_norm_eps", "norm_eps"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        require(0 <= self.drop_path < 1, "drop_path", self.drop_path, "0 to below 1")

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels for each token of a stage."""
        return tuple(4 * 2**stage for stage in range(len(self.widths)))

    @property
    def smallest_side(self) -> int:
        """Image pixels that give every stage at least one key."""
        pairs = zip(self.strides, self.reductions, strict=True)
        return max(stride * (reduction - 1) + 1 for stride, reduction in pairs)

    def drop_path_rates(self, stage: int) -> list[float]:
        """The rate of each block of a stage."""
        before, last = sum(self.depths[:stage]), sum(self.depths) - 1
        return [self.drop_path * (before + b) / max(last, 1) for b in range(self.depths[stage])]


class PatchEmbed(nnx.Module):
    """A strided convolution over overlapping patches, and a norm."""

    def __init__(self, config: MiTConfig, stage: int, **kwargs):
        kernel_size, stride = (7, 4) if stage == 0 else (3, 2)
        self.proj = ops.Conv(
            (3, *config.widths)[stage],
            config.widths[stage],
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            weight_init=conv_init(config),
            bias_init=init.zeros,
            **kwargs,
        )
        self.norm = _norm(config.widths[stage], config.embed_norm_eps, **kwargs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, in), to (B, ceil(H / stride), ceil(W / stride), C)."""
        return self.norm(self.proj(x))


class ReductionConv(ops.Conv):
    """A convolution whose stride is its kernel: squares of the map that do not overlap."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, in), to (B, H // stride, W // stride, out)."""
        B, H, W, C = x.shape
        side = self.stride
        rows, cols = H // side, W // side
        # Squares that share no pixel need no convolution: one matrix product takes them all,
        # which XLA:CPU runs faster. Rows and columns that fill no square do not count.
        x = x[:, : rows * side, : cols * side].astype(self.dtype)
        squares = x.reshape(B, rows, side, cols, side, C).swapaxes(2, 3)
        squares = squares.reshape(B, rows, cols, side * side * C)
        y = squares @ self.weight[...].astype(self.dtype).reshape(side * side * C, -1)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


class Attention(nnx.Module):
    """Attention of every token to a reduced map (equation 2)."""

    def __init__(self, config: MiTConfig, stage: int, **kwargs):
        width, reduction = config.widths[stage], config.reductions[stage]
        options = {"weight_init": init.normal(STD), "bias_init": init.zeros, **kwargs}
        joint = dict(options)
        if config.linear_init == "xavier_he":
            joint["weight_init"] = init.uniform(math.sqrt(6 / (width + 3 * width)))
        self.heads = config.heads[stage]
        self.q = ops.Linear(width, width, **joint)
        self.kv = ops.Linear(width, 2 * width, **joint)
        self.proj = ops.Linear(width, width, **options)
        self.sr = self.norm = nnx.data(None)
        if reduction > 1:
            options["weight_init"] = conv_init(config)
            self.sr = ReductionConv(width, width, reduction, stride=reduction, **options)
            self.norm = _norm(width, config.reduction_norm_eps, **kwargs)

    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Maps x, (B, N, C), the tokens of a map of this size, to the same shape."""
        key, value = jnp.split(self.kv(self._reduced(x, size)), 2, -1)
        query, key, value = map(self._split_heads, (self.q(x), key, value))
        mixed = ops.attention(query, key, value, self._counts(size))
        return self.proj(mixed.swapaxes(1, 2).reshape(x.shape))

    def _reduced(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        if self.sr is None or self.norm is None:
            return x
        B, _, C = x.shape
        return self.norm(self.sr(x.reshape(B, *size, C)).reshape(B, -1, C))

    def _counts(self, size: tuple[int, int]) -> jax.Array | None:
        """Which tokens of the reduced map are whole squares of the picture, (B, M); None: all."""
        shown = canvas.shown(size, 1 if self.sr is None else self.sr.stride)
        return None if shown is None else shown.reshape(len(shown), -1)

    def _split_heads(self, x: jax.Array) -> jax.Array:
        """(B, N, C) to (B, h, N, C / h)."""
        return x.reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2)


class MixFFN(nnx.Module):
    """An MLP with a depthwise convolution before its activation (equation 3)."""

    def __init__(self, config: MiTConfig, stage: int, **kwargs):
        width = config.widths[stage]
        hidden = config.mlp_ratio * width
        he = config.linear_init == "xavier_he"
        linear = {
            "weight_init": init.kaiming_normal_fan_out if he else init.normal(STD),
            "bias_init": init.zeros,
            **kwargs,
        }
        depthwise = {**linear, "weight_init": conv_init(config, groups=hidden)}
        self.fc1 = ops.Linear(width, hidden, **linear)
        self.dwconv = ops.Conv(hidden, hidden, 3, padding=1, groups=hidden, **depthwise)
        self.fc2 = ops.Linear(hidden, width, **linear)

    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Maps x, (B, N, C), the tokens of a map of this size, to the same shape."""
        hidden = self.fc1(x)
        moved = self.dwconv(hidden.reshape(len(x), *size, -1))
        return self.fc2(ops.gelu(moved).reshape(hidden.shape))


class Block(nnx.Module):
    """Attention and MLP, each normalised before and added to its input."""

    def __init__(self, config: MiTConfig, stage: int, drop_path: float, **kwargs):
        width = config.widths[stage]
        self.norm1 = _norm(width, config.norm_eps, **kwargs)
        self.attn = Attention(config, stage, **kwargs)
        self.norm2 = _norm(width, config.norm_eps, **kwargs)
        self.mlp = MixFFN(config, stage, **kwargs)
        self.drop_path = ops.DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps x, (B, H, W, C), to the same shape."""
        B, H, W, C = x.shape
        tokens = x.reshape(B, H * W, C)
        tokens += self.drop_path(self.attn(self.norm1(tokens), (H, W)), rngs)
        tokens += self.drop_path(self.mlp(self.norm2(tokens), (H, W)), rngs)
        return tokens.reshape(x.shape)


class Stage(nnx.Module):
    """Patch embedding, blocks of one width, norm."""

    def __init__(self, config: MiTConfig, stage: int, remat: bool, **kwargs):
        self.remat = remat
        self.patch_embed = PatchEmbed(config, stage, **kwargs)
        self.blocks = nnx.List(
            Block(config, stage, rate, **kwargs) for rate in config.drop_path_rates(stage)
        )
        self.norm = _norm(config.widths[stage], config.norm_eps, **kwargs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps x, (B, H, W, in), to (B, ceil(H / stride), ceil(W / stride), C)."""
        x = self.patch_embed(x)
        for block in self.blocks:
            x = checkpointed(self.remat, block, x, rngs)
        return self.norm(x)


class MiT(nnx.Module):
    """The stages; no classifier."""

    def __init__(
        self,
        config: MiTConfig,
        *,
        remat: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kwargs = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.stages = nnx.List(Stage(config, i, remat, **kwargs) for i in range(len(config.widths)))

    def __call__(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> tuple[jax.Array, ...]:
        """The normalised output of every stage for images, (B, H, W, 3).

        Args:
            images: any H and W from the configuration's `smallest_side` on.
            rngs: keys of the "dropout" stream.
        """
        x = images
        outputs = []
        for stage in self.stages:
            x = stage(x, rngs)
            outputs.append(x)
        return tuple(outputs)


def conv_init(config: MiTConfig, groups: int = 1) -> init.Initializer:
    """The initialiser of a convolution's weight."""
    if config.conv_init == "normal":
        return init.normal(STD)
    scale = 2.0 * groups if config.conv_init == "he_groups" else 2.0
    return init.variance_scaling(scale, "fan_out", "normal")


def _norm(channels: int, eps: float, *, dtype: DTypeLike, param_dtype: DTypeLike, rngs: nnx.Rngs):
    return ops.LayerNorm(channels, eps=eps, dtype=dtype, param_dtype=param_dtype)
