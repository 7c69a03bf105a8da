"""mmsegmentation 1.x: https://github.com/open-mmlab/mmsegmentation (0.x has the same keys)."""

from convert.formats.format import Format
from convert.formats.setr import FREE_FIELDS
from convert.rules import rename

_LAYER = "backbone.layers.{b}"

ENCODER = (
    rename("backbone.cls_token", "backbone.cls_token"),
    rename("backbone.pos_embed", "backbone.pos_embed"),
    rename("backbone.patch_embed.proj.weight", "backbone.patch_embed.projection.weight"),
    rename("backbone.blocks.{b}.norm1.*", f"{_LAYER}.ln1.*"),
    rename("backbone.blocks.{b}.attn.qkv.weight", f"{_LAYER}.attn.attn.in_proj_weight"),
    rename("backbone.blocks.{b}.attn.qkv.bias", f"{_LAYER}.attn.attn.in_proj_bias"),
    rename("backbone.blocks.{b}.attn.proj.*", f"{_LAYER}.attn.attn.out_proj.*"),
    rename("backbone.blocks.{b}.norm2.*", f"{_LAYER}.ln2.*"),
    rename("backbone.blocks.{b}.mlp.fc1.*", f"{_LAYER}.ffn.layers.0.0.*"),
    rename("backbone.blocks.{b}.mlp.fc2.*", f"{_LAYER}.ffn.layers.1.*"),
)

NECK = (
    rename("neck.norms.{i}.*", "neck.norm.{i}.*"),
    rename("neck.projs.{i}.conv.weight", "neck.mla.channel_proj.{i}.conv.weight"),
    rename("neck.projs.{i}.bn.*", "neck.mla.channel_proj.{i}.bn.*"),
    rename("neck.convs.{i}.conv.weight", "neck.mla.feat_extract.{i}.conv.weight"),
    rename("neck.convs.{i}.bn.*", "neck.mla.feat_extract.{i}.bn.*"),
)

HEADS = (
    rename("head.classifier.*", "decode_head.conv_seg.*"),
    rename("head.norm.*", "decode_head.norm.*"),
    rename("head.convs.{i}.conv.weight", "decode_head.up_convs.{i}.0.conv.weight"),
    rename("head.convs.{i}.bn.*", "decode_head.up_convs.{i}.0.bn.*"),
    rename("head.branches.{i}.conv1.conv.weight", "decode_head.up_convs.{i}.0.conv.weight"),
    rename("head.branches.{i}.conv1.bn.*", "decode_head.up_convs.{i}.0.bn.*"),
    rename("head.branches.{i}.conv2.conv.weight", "decode_head.up_convs.{i}.1.conv.weight"),
    rename("head.branches.{i}.conv2.bn.*", "decode_head.up_convs.{i}.1.bn.*"),
    rename("aux_heads.{k}.classifier.*", "auxiliary_head.{k}.conv_seg.*"),
    rename("aux_heads.{k}.norm.*", "auxiliary_head.{k}.norm.*"),
    rename("aux_heads.{k}.convs.{i}.conv.weight", "auxiliary_head.{k}.up_convs.{i}.0.conv.weight"),
    rename("aux_heads.{k}.convs.{i}.bn.*", "auxiliary_head.{k}.up_convs.{i}.0.bn.*"),
)

FORMAT = Format(
    name="mmseg",
    architecture="setr",
    origin="mmsegmentation setr_vit-l_naive, _pup and _mla",
    licence="Apache-2.0",
    rules=(*ENCODER, *NECK, *HEADS),
    variants=(
        "setr_naive",
        "setr_pup",
        "setr_mla",
        "setr_naive_cityscapes",
        "setr_pup_cityscapes",
        "setr_mla_cityscapes",
    ),
    free=FREE_FIELDS,
    wrapper="state_dict",
)
