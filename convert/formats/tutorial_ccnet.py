"""The CCNet tutorial: a dilated torchvision ResNet and a head without activations."""

from convert.formats.ccnet import FREE_FIELDS
from convert.formats.format import Format
from convert.formats.torchvision_resnet import ENCODER
from convert.rules import rename, under

RULES = (
    *under("backbone.", ENCODER),
    rename("head.conv_in.conv.weight", "decode_head.conv_in.0.weight"),
    rename("head.conv_in.bn.*", "decode_head.conv_in.1.*"),
    rename("head.cca.gamma", "decode_head.CCA.gamma"),
    rename("head.cca.query.*", "decode_head.CCA.ConvQuery.*"),
    rename("head.cca.key.*", "decode_head.CCA.ConvKey.*"),
    rename("head.cca.value.*", "decode_head.CCA.ConvValue.*"),
    rename("head.conv_out.conv.weight", "decode_head.conv_out.0.weight"),
    rename("head.fuse.conv.weight", "decode_head.cls_seg.0.weight"),
    rename("head.fuse.bn.*", "decode_head.cls_seg.1.*"),
    rename("head.classifier.*", "decode_head.cls_seg.3.*"),
)

FORMAT = Format(
    name="tutorial",
    architecture="ccnet",
    origin="CCNet tutorial, state dict of the bare network",
    rules=RULES,
    variants=("ccnet",),
    free=FREE_FIELDS,
)
