"""mmsegmentation 1.x: https://github.com/open-mmlab/mmsegmentation (0.x has the same keys)."""

from convert.changes import SCALAR
from convert.formats.ccnet import FREE_FIELDS
from convert.formats.format import Format
from convert.formats.mmseg_resnet import ENCODER
from convert.rules import rename, under

RULES = (
    *under("backbone.", ENCODER),
    rename("head.classifier.*", "decode_head.conv_seg.*"),
    rename("head.conv_in.conv.weight", "decode_head.convs.0.conv.weight"),
    rename("head.conv_in.bn.*", "decode_head.convs.0.bn.*"),
    rename("head.conv_out.conv.weight", "decode_head.convs.1.conv.weight"),
    rename("head.conv_out.bn.*", "decode_head.convs.1.bn.*"),
    rename("head.fuse.conv.weight", "decode_head.conv_cat.conv.weight"),
    rename("head.fuse.bn.*", "decode_head.conv_cat.bn.*"),
    rename("head.cca.query.*", "decode_head.cca.query_conv.*"),
    rename("head.cca.key.*", "decode_head.cca.key_conv.*"),
    rename("head.cca.value.*", "decode_head.cca.value_conv.*"),
    rename("head.cca.gamma", "decode_head.cca.gamma.scale", SCALAR),
    rename("aux_head.classifier.*", "auxiliary_head.conv_seg.*"),
    rename("aux_head.conv.conv.weight", "auxiliary_head.convs.0.conv.weight"),
    rename("aux_head.conv.bn.*", "auxiliary_head.convs.0.bn.*"),
)

FORMAT = Format(
    name="mmseg",
    architecture="ccnet",
    origin="mmsegmentation ccnet_r50-d8 and ccnet_r101-d8",
    licence="Apache-2.0",
    rules=RULES,
    variants=("ccnet_r50", "ccnet_r101"),
    free=FREE_FIELDS,
    wrapper="state_dict",
)
