"""The authors' CCNet: https://github.com/speedinghzl/CCNet, branch pure-python.

Its norms are InPlaceABN layers, which scale by |weight| + eps where a plain BatchNorm scales by
weight. This table carries the values as they are; `convert.load` and `convert.save` turn them into
those of a plain BatchNorm and back. It takes blue, green and red from 0 to 255 less their means.
"""

from convert.formats.ccnet import FREE_FIELDS
from convert.formats.format import Format
from convert.formats.torchvision_resnet import STAGES
from convert.rules import rename
from flaxseg.preprocess import Preprocess

RULES = (
    rename("backbone.stem.{i}.conv.weight", "conv{i+1}.weight"),
    rename("backbone.stem.{i}.bn.*", "bn{i+1}.*"),
    *STAGES,
    rename("head.conv_in.conv.weight", "head.conva.0.weight"),
    rename("head.conv_in.bn.*", "head.conva.1.*"),
    rename("head.cca.gamma", "head.cca.gamma"),
    rename("head.cca.query.*", "head.cca.query_conv.*"),
    rename("head.cca.key.*", "head.cca.key_conv.*"),
    rename("head.cca.value.*", "head.cca.value_conv.*"),
    rename("head.conv_out.conv.weight", "head.convb.0.weight"),
    rename("head.conv_out.bn.*", "head.convb.1.*"),
    rename("head.fuse.conv.weight", "head.bottleneck.0.weight"),
    rename("head.fuse.bn.*", "head.bottleneck.1.*"),
    rename("head.classifier.*", "head.bottleneck.3.*"),
    rename("aux_head.conv.conv.*", "dsn.0.*"),
    rename("aux_head.conv.bn.*", "dsn.1.*"),
    rename("aux_head.classifier.*", "dsn.3.*"),
)

PREPROCESS = Preprocess(
    mean=(122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    channels="bgr",
)

FORMAT = Format(
    name="original",
    architecture="ccnet",
    origin="the CCNet authors' ResNet-101, state dict of the bare network",
    licence="MIT",
    rules=RULES,
    variants=("ccnet_r101_original",),
    free=FREE_FIELDS,
    inplace_abn=True,
    preprocess=PREPROCESS,
)
