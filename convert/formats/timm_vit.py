"""timm's Vision Transformers: https://github.com/huggingface/pytorch-image-models.

The encoder alone, for every network whose queries, keys and values have a bias. A network without
a bias in its patch embedding leaves theirs out, as mmsegmentation does with the same files.
"""

from collections.abc import Mapping

from convert.changes import Shape
from convert.formats.format import Format
from convert.rules import Extra, Rule, rename, where
from flaxseg.preprocess import Preprocess

LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
"""Of a block."""

BLOCKS = tuple(rename(f"backbone.blocks.{{b}}.{n}.*", f"blocks.{{b}}.{n}.*") for n in LAYERS)

ENCODER: tuple[Rule, ...] = (
    rename("backbone.cls_token", "cls_token"),
    rename("backbone.pos_embed", "pos_embed"),
    rename("backbone.patch_embed.proj.*", "patch_embed.proj.*"),
    *BLOCKS,
)
"""Shared by all peers whose encoder descends from this one."""


def _width(leaves: Mapping[str, Shape]) -> Shape:
    return leaves["backbone.cls_token"][-1:]


AFTER_THE_BLOCKS = "stands behind the blocks, where the heads of SETR do not read"

HEAD_DIM = 64
"""Channels of a head in all of timm's ViTs of this layout."""

RULES: tuple[Rule | Extra, ...] = (
    *ENCODER,
    *where(
        [Extra("patch_embed.proj.bias", "the network's patch embedding has no bias", _width)],
        lacking="backbone.patch_embed.proj.bias",
    ),
    Extra("norm.weight", AFTER_THE_BLOCKS, _width),
    Extra("norm.bias", AFTER_THE_BLOCKS, _width),
    Extra("head.weight", "classifies ImageNet", lambda leaves: (1000, *_width(leaves))),
    Extra("head.bias", "classifies ImageNet", lambda leaves: (1000,)),
)

FORMAT = Format(
    name="timm",
    architecture="vit",
    origin="timm's vit_*_patch16_*, the encoder alone",
    licence="Apache-2.0; see the card of each weight file",
    rules=RULES,
    scope="backbone.",
    head_dim=HEAD_DIM,
    preprocess=Preprocess((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # augreg's; few others have ImageNet's
)
