"""The SETR tutorial: a ViT that cuts and flattens patches itself, and four equal heads."""

from convert.changes import PatchPixels
from convert.formats.format import Format
from convert.formats.setr import FREE_FIELDS
from convert.rules import Rule, rename

_LAYER = "VIT.transformer.layers.{b}"

ENCODER = (
    rename("backbone.pos_embed", "VIT.pos_embedding"),
    rename("backbone.cls_token", "VIT.cls_token"),
    rename("backbone.patch_embed.proj.weight", "VIT.to_patch_embedding.1.weight", PatchPixels()),
    rename("backbone.patch_embed.proj.bias", "VIT.to_patch_embedding.1.bias"),
    rename("backbone.blocks.{b}.norm1.*", f"{_LAYER}.0.norm.*"),
    rename("backbone.blocks.{b}.attn.qkv.weight", f"{_LAYER}.0.fn.to_qkv.weight"),
    rename("backbone.blocks.{b}.attn.proj.*", f"{_LAYER}.0.fn.to_out.0.*"),
    rename("backbone.blocks.{b}.norm2.*", f"{_LAYER}.1.norm.*"),
    rename("backbone.blocks.{b}.mlp.fc1.*", f"{_LAYER}.1.fn.net.0.*"),
    rename("backbone.blocks.{b}.mlp.fc2.*", f"{_LAYER}.1.fn.net.3.*"),
)


def _head(native: str, foreign: str) -> tuple[Rule, ...]:
    return (
        rename(f"{native}.convs.{{s}}.conv.*", f"{foreign}.UP_stage_{{s+1}}.0.*"),
        rename(f"{native}.convs.{{s}}.bn.*", f"{foreign}.UP_stage_{{s+1}}.1.*"),
        rename(f"{native}.classifier.*", f"{foreign}.cls_seg.*"),
    )


RULES = (
    *ENCODER,
    *_head("aux_heads.0", "Head.Head9"),
    *_head("aux_heads.1", "Head.Head14"),
    *_head("aux_heads.2", "Head.Head19"),
    *_head("head", "Head.Head23"),
)

FORMAT = Format(
    name="tutorial",
    architecture="setr",
    origin="SETR tutorial, state dict of the bare network",
    rules=RULES,
    variants=("setr",),
    free=FREE_FIELDS,
)
