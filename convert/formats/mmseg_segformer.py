"""mmsegmentation 1.x: https://github.com/open-mmlab/mmsegmentation, configs/segformer."""

from convert.formats.format import Format
from convert.formats.mmseg_mit import ENCODER
from convert.formats.segformer import FREE_FIELDS, SIZES
from convert.rules import rename, under

RULES = (
    *under("backbone.", ENCODER),
    rename("head.classifier.*", "decode_head.conv_seg.*"),
    rename("head.convs.{i}.conv.weight", "decode_head.convs.{i}.conv.weight"),
    rename("head.convs.{i}.bn.*", "decode_head.convs.{i}.bn.*"),
    rename("head.fuse.conv.weight", "decode_head.fusion_conv.conv.weight"),
    rename("head.fuse.bn.*", "decode_head.fusion_conv.bn.*"),
)

FORMAT = Format(
    name="mmseg",
    architecture="segformer",
    origin="mmsegmentation segformer_mit-b0 to b5",
    licence="Apache-2.0",
    rules=RULES,
    variants=tuple(f"segformer_{size}_mmseg" for size in SIZES),
    free=FREE_FIELDS,
    wrapper="state_dict",
)
