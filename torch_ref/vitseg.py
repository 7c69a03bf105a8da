"""ViTSeg: a plain ViT whose every token is projected back to the pixels of its patch.

Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929, for the
encoder, here without class token and final norm: the network of the Oxford-IIIT Pet tutorial.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flaxseg.models.vitseg import NORM_EPS, ViTSegConfig
from torch_ref.blocks import Output
from torch_ref.vit import Block, PatchEmbed


class ViTSeg(nn.Module):
    """Norm of the image, patches with positions, blocks, projection to pixels.

    Weights start as torch's own layers do: queries, keys and values with Xavier's rule and no
    bias, the attention's projection without bias too, as in `nn.MultiheadAttention`. Positions
    start at N(0, 1).
    """

    def __init__(self, config: ViTSegConfig):
        super().__init__()
        self.config = config
        rows, cols = config.grid
        self.input_norm = nn.BatchNorm2d(3)
        self.patch_embed = PatchEmbed(config.patch_size, config.width)
        self.pos_embed = nn.Parameter(torch.randn(rows * cols, config.width))
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.depth))
        self.head = nn.Linear(config.width, config.num_classes * config.patch_size**2)

    def forward(self, images: Tensor, resize: bool = True, aux: bool = False) -> Output:
        """Segments images, (B, 3, H, W).

        Args:
            images: of the configuration's `image_size`, not normalised.
            resize: without effect, as the head's own resolution is the image's.
            aux: without effect, as there are no auxiliary heads.

        Raises:
            ConfigError: images of another size.
        """
        height, width = images.shape[2:]
        self.config.check_size((height, width))
        x = self.patch_embed(self.input_norm(images)) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.head(x)  # (B, h * w, K * patch * patch): class, then row and column in the patch
        patch = self.config.patch_size
        return Output(F.fold(x.transpose(1, 2), (height, width), kernel_size=patch, stride=patch))


def _block(config: ViTSegConfig) -> Block:
    block = Block(
        config.width,
        config.num_heads,
        config.mlp_dim,
        NORM_EPS,
        attn_dropout=config.dropout,
        mlp_dropout=config.dropout,
    )
    nn.init.xavier_uniform_(block.attn.qkv.weight)
    nn.init.zeros_(block.attn.qkv.bias)
    nn.init.zeros_(block.attn.proj.bias)
    return block
