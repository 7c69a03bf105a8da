"""ViTSeg: a plain ViT whose every token is projected back to the pixels of its patch.

Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929, for the
encoder, here without class token and final norm. The head is one linear layer: no convolution and
no interpolation.

Variants: `vitseg` is the network of the Oxford-IIIT Pet tutorial. It takes images as they are,
since it normalises them itself, with a batch normalisation.
"""

import dataclasses
from typing import Any, Self

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg import ops
from flaxseg.labels import MAX_CLASSES
from flaxseg.models.blocks import AnySize, Network, Output, checkpointed, require
from flaxseg.models.vit import IMAGE_CHANNELS, Block, BlockInit, PatchEmbed
from flaxseg.ops import initializers as init

NORM_EPS = 1e-5
"""Of the layer norms."""

_BLOCK_INIT = BlockInit(
    qkv=(init.xavier_uniform, init.zeros),
    proj=(init.torch_default, init.zeros),
    mlp=(init.torch_default, None),
)
"""What torch's MultiheadAttention and Linear start with."""


@dataclasses.dataclass(frozen=True)
class ViTSegConfig(AnySize):
    """Size of a ViTSeg.

    Attributes:
        num_classes: classes to tell apart.
        image_size: (H, W), the only one that the network takes.
        patch_size: side of the square patches.
        width: channels of a token.
        depth: blocks.
        num_heads: heads of each attention.
        mlp_dim: hidden channels of each block's MLP.
        dropout: rate of attention weights, and behind each block's MLP.
        aux_weights: empty, as there are no auxiliary heads.
        remat: keep no activations inside the blocks for the gradient, but compute them again.
    """

    num_classes: int = 3
    image_size: tuple[int, int] = (128, 128)
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 8
    mlp_dim: int = 3072
    dropout: float = 0.2
    aux_weights: tuple[float, ...] = ()
    remat: bool = False

    def __post_init__(self):
        require(1 <= self.num_classes <= MAX_CLASSES, "num_classes", self.num_classes, "1 to 255")
        for name in ("patch_size", "width", "depth", "num_heads", "mlp_dim"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        fits = len(self.image_size) == 2 and all(
            side >= 1 and side % self.patch_size == 0 for side in self.image_size
        )
        expected = f"(H, W), multiples of the patch size {self.patch_size}"
        require(fits, "image_size", self.image_size, expected)
        expected = f"a multiple of the {self.num_heads} heads"
        require(self.width % self.num_heads == 0, "width", self.width, expected)
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1")
        expected = "no values, as there are no auxiliary heads"
        require(not self.aux_weights, "aux_weights", self.aux_weights, expected)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size

    @property
    def fixed_size(self) -> tuple[int, int]:
        """The only image size that the network takes, (H, W)."""
        return self.image_size

    def with_image_size(self, size: tuple[int, int]) -> Self:
        """The configuration for images of this height and width in pixels.

        Raises:
            ConfigError: they are not whole patches.
        """
        return dataclasses.replace(self, image_size=tuple(size))


class ViTSeg(Network):
    """Norm of the image, patches with positions, blocks, projection to pixels."""

    def __init__(
        self,
        config: ViTSegConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        self.config = config
        self.dtype = dtype
        self.input_norm = ops.BatchNorm(IMAGE_CHANNELS, **dtypes)
        self.patch_embed = PatchEmbed(config.patch_size, config.width, rngs=rngs, **dtypes)
        rows, cols = config.grid
        shape = (rows * cols, config.width)
        self.pos_embed = nnx.Param(init.normal(1.0)(rngs.params(), shape, param_dtype))
        self.blocks = nnx.List(_block(config, rngs=rngs, **dtypes) for _ in range(config.depth))
        pixels = config.num_classes * config.patch_size**2
        self.head = ops.Linear(config.width, pixels, rngs=rngs, **dtypes)

    @ops.in_own_precision
    def __call__(
        self,
        images: jax.Array,
        *,
        resize: bool = True,
        aux: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> Output:
        """Segments images, (B, H, W, 3).

        Args:
            images: of the configuration's `image_size`, not normalised.
            resize: without effect, as the head's own resolution is the image's.
            aux: without effect, as there are no auxiliary heads.
            rngs: keys of the "dropout" stream, for training with dropout.

        Raises:
            ConfigError: images of another size.
        """
        del resize, aux
        self.config.check_size((images.shape[1], images.shape[2]))
        return Output(self._unfold(self.head(self.encode(images, rngs))))

    def encode(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Tokens (B, h * w, width) of images, (B, H, W, 3): all that comes before the head."""
        x = self.patch_embed(self.input_norm(images))
        x = x + self.pos_embed[...].astype(self.dtype)
        for block in self.blocks:
            x = checkpointed(self.config.remat, block, x, rngs)
        return x

    def _unfold(self, tokens: jax.Array) -> jax.Array:
        """Logits (B, H, W, K), float32 or wider, of tokens (B, h * w, K * patch * patch)."""
        B, (rows, cols), p = len(tokens), self.config.grid, self.config.patch_size
        tokens = tokens.astype(jnp.promote_types(tokens.dtype, jnp.float32))
        patches = tokens.reshape(B, rows, cols, self.config.num_classes, p, p)
        return patches.transpose(0, 1, 4, 2, 5, 3).reshape(B, rows * p, cols * p, -1)


def _block(config: ViTSegConfig, **kwargs) -> Block:
    return Block(
        config.width,
        config.num_heads,
        config.mlp_dim,
        norm_eps=NORM_EPS,
        attn_dropout=config.dropout,
        mlp_dropout=config.dropout,
        inits=_BLOCK_INIT,
        **kwargs,
    )


VARIANTS = {"vitseg": ViTSegConfig()}
"""The published networks by name."""
