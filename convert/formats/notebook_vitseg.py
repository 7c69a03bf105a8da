"""The Oxford-IIIT Pet tutorial: https://github.com/dhruvbird/ml-notebooks, pets_segmentation."""

import math

from convert.changes import Reshape
from convert.formats.format import Format
from convert.rules import rename
from flaxseg.preprocess import Preprocess

_FLAT = Reshape(lambda shape: (shape[0], math.prod(shape[1:])))
"""A convolution's kernel as a linear layer on patches, whose pixels come channel by channel."""

RULES = (
    rename("input_norm.*", "layers.0.*"),
    rename("pos_embed", "layers.1.position_embed"),
    rename("patch_embed.proj.weight", "layers.1.pe.embed_layer.weight", _FLAT),
    rename("patch_embed.proj.bias", "layers.1.pe.embed_layer.bias"),
    rename("blocks.{b}.norm1.*", "layers.2.{b}.ln1.*"),
    rename("blocks.{b}.attn.qkv.*", "layers.2.{b}.mha.in_proj_*"),
    rename("blocks.{b}.attn.proj.*", "layers.2.{b}.mha.out_proj.*"),
    rename("blocks.{b}.norm2.*", "layers.2.{b}.ln2.*"),
    rename("blocks.{b}.mlp.fc1.*", "layers.2.{b}.mlp.layers.0.*"),
    rename("blocks.{b}.mlp.fc2.*", "layers.2.{b}.mlp.layers.2.*"),
    rename("head.*", "layers.3.projection.*"),
)

FREE_FIELDS = frozenset(
    {
        "num_classes",
        # Shapes reveal the number of positions; the tutorial's images are square.
        "image_size",
        "patch_size",
        "width",
        "depth",
        "mlp_dim",
        "dropout",
        "aux_weights",
        "remat",
    }
)
"""Configuration fields that shapes reveal or that a trained network's output does not depend on."""

FORMAT = Format(
    name="notebook",
    architecture="vitseg",
    origin="Oxford-IIIT Pet tutorial, state dict of VisionTransformerForSegmentation",
    rules=RULES,
    variants=("vitseg",),
    free=FREE_FIELDS,
    preprocess=Preprocess((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # the first layer normalises
)
