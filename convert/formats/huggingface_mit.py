"""Hugging Face's nvidia/mit-b0 to mit-b5, SegformerForImageClassification in transformers.

The encoder alone, in the names of transformers 4 and of all files, whatever version wrote them.
"""

from convert.changes import Cut
from convert.formats.format import Format
from convert.rules import Extra, Rule, rename

BLOCK = "backbone.stages.{s}.blocks.{b}."
ATTENTION = "segformer.encoder.block.{s}.{b}.attention."
KEY_AND_VALUE = (ATTENTION + "self.key.*", ATTENTION + "self.value.*")

ENCODER: tuple[Rule, ...] = (
    rename(
        "backbone.stages.{s}.patch_embed.proj.*", "segformer.encoder.patch_embeddings.{s}.proj.*"
    ),
    rename(
        "backbone.stages.{s}.patch_embed.norm.*",
        "segformer.encoder.patch_embeddings.{s}.layer_norm.*",
    ),
    rename(BLOCK + "norm1.*", "segformer.encoder.block.{s}.{b}.layer_norm_1.*"),
    rename(BLOCK + "attn.q.*", ATTENTION + "self.query.*"),
    rename(BLOCK + "attn.kv.*", KEY_AND_VALUE, Cut()),
    rename(BLOCK + "attn.sr.*", ATTENTION + "self.sr.*"),
    rename(BLOCK + "attn.norm.*", ATTENTION + "self.layer_norm.*"),
    rename(BLOCK + "attn.proj.*", ATTENTION + "output.dense.*"),
    rename(BLOCK + "norm2.*", "segformer.encoder.block.{s}.{b}.layer_norm_2.*"),
    rename(BLOCK + "mlp.fc1.*", "segformer.encoder.block.{s}.{b}.mlp.dense1.*"),
    rename(BLOCK + "mlp.dwconv.*", "segformer.encoder.block.{s}.{b}.mlp.dwconv.dwconv.*"),
    rename(BLOCK + "mlp.fc2.*", "segformer.encoder.block.{s}.{b}.mlp.dense2.*"),
    rename("backbone.stages.{s}.norm.*", "segformer.encoder.layer_norm.{s}.*"),
)

FORMAT = Format(
    name="huggingface",
    architecture="mit",
    origin="Hugging Face's nvidia/mit-b0 to mit-b5, the encoder alone",
    licence="NVIDIA's: non-commercial use only, for nvidia/* weights",
    non_commercial=True,
    rules=(
        *ENCODER,
        Extra(
            "classifier.weight",
            "classifies ImageNet",
            lambda leaves: (1000, *leaves["backbone.stages.3.norm.weight"]),
        ),
        Extra("classifier.bias", "classifies ImageNet", lambda leaves: (1000,)),
    ),
    scope="backbone.",
)
