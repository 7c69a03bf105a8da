"""The SegFormer authors' ImageNet encoders, mit_b0 to mit_b5: https://github.com/NVlabs/SegFormer.

The encoder alone. No shape tells the epsilons of its norms, and an encoder that training goes on
with need not keep them: the files fit every MiT.
"""

from convert.formats.format import Format
from convert.rules import Extra, Rule, rename

# Written out, since the four embeddings come before the first block.
PATCH_EMBEDS = tuple(
    rename(f"backbone.stages.{stage}.patch_embed.{layer}.*", f"patch_embed{stage + 1}.{layer}.*")
    for stage in range(4)
    for layer in ("proj", "norm")
)

BLOCK = "backbone.stages.{s}.blocks.{b}."

ENCODER: tuple[Rule, ...] = (
    *PATCH_EMBEDS,
    rename(BLOCK + "norm1.*", "block{s+1}.{b}.norm1.*"),
    rename(BLOCK + "attn.q.*", "block{s+1}.{b}.attn.q.*"),
    rename(BLOCK + "attn.kv.*", "block{s+1}.{b}.attn.kv.*"),
    rename(BLOCK + "attn.proj.*", "block{s+1}.{b}.attn.proj.*"),
    rename(BLOCK + "attn.sr.*", "block{s+1}.{b}.attn.sr.*"),
    rename(BLOCK + "attn.norm.*", "block{s+1}.{b}.attn.norm.*"),
    rename(BLOCK + "norm2.*", "block{s+1}.{b}.norm2.*"),
    rename(BLOCK + "mlp.fc1.*", "block{s+1}.{b}.mlp.fc1.*"),
    rename(BLOCK + "mlp.dwconv.*", "block{s+1}.{b}.mlp.dwconv.dwconv.*"),
    rename(BLOCK + "mlp.fc2.*", "block{s+1}.{b}.mlp.fc2.*"),
    rename("backbone.stages.{s}.norm.*", "norm{s+1}.*"),
)
"""Shared by all peers that keep the authors' encoder."""

FORMAT = Format(
    name="nvlabs",
    architecture="mit",
    origin="the SegFormer authors' mit_b0 to mit_b5, the encoder alone",
    licence="NVIDIA Source Code License: non-commercial use only",
    non_commercial=True,
    rules=(
        *ENCODER,
        Extra(
            "head.weight",
            "classifies ImageNet",
            lambda leaves: (1000, *leaves["backbone.stages.3.norm.weight"]),
        ),
        Extra("head.bias", "classifies ImageNet", lambda leaves: (1000,)),
    ),
    scope="backbone.",
)
