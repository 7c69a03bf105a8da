"""mmsegmentation 1.x: https://github.com/open-mmlab/mmsegmentation, configs/bisenetv2."""

from convert.formats.bisenetv2 import AGGREGATION, FREE_FIELDS, SEMANTIC, conv_bn
from convert.formats.format import Format
from convert.rules import Rule, rename, under


def _gate(native: str, foreign: str) -> tuple[Rule, ...]:
    return (
        *conv_bn(f"{native}.spatial", f"{foreign}.0.depthwise_conv"),
        rename(f"{native}.project.*", f"{foreign}.0.pointwise_conv.conv.*"),
    )


_LAYER, _PEER_LAYER = f"{SEMANTIC}stages.{{s}}.{{b}}", "semantic.stage{s+2}.{b}"

_BACKBONE = (
    *conv_bn("backbone.detail.stages.{s}.{k}", "detail.detail_branch.{s}.{k}"),
    *conv_bn(f"{SEMANTIC}stem.conv", "semantic.stage1.conv_first"),
    *conv_bn(f"{SEMANTIC}stem.reduce", "semantic.stage1.convs.0"),
    *conv_bn(f"{SEMANTIC}stem.down", "semantic.stage1.convs.1"),
    *conv_bn(f"{SEMANTIC}stem.fuse", "semantic.stage1.fuse_last"),
    *conv_bn(f"{_LAYER}.conv1", f"{_PEER_LAYER}.conv1"),
    *conv_bn(f"{_LAYER}.expand", f"{_PEER_LAYER}.dwconv.0"),
    *conv_bn(f"{_LAYER}.spatial.{{i}}", f"{_PEER_LAYER}.dwconv.{{i+1}}"),
    *conv_bn(f"{_LAYER}.shortcut.spatial", f"{_PEER_LAYER}.shortcut.0.depthwise_conv"),
    *conv_bn(f"{_LAYER}.shortcut.project", f"{_PEER_LAYER}.shortcut.0.pointwise_conv"),
    *conv_bn(f"{_LAYER}.project", f"{_PEER_LAYER}.conv2.0"),
    rename(f"{SEMANTIC}context.bn.*", "semantic.stage4_CEBlock.gap.1.*"),
    *conv_bn(f"{SEMANTIC}context.conv_gap", "semantic.stage4_CEBlock.conv_gap"),
    *conv_bn(f"{SEMANTIC}context.conv_last", "semantic.stage4_CEBlock.conv_last"),
    *_gate(f"{AGGREGATION}detail_keep", "bga.detail_dwconv"),
    *conv_bn(f"{AGGREGATION}detail_down", "bga.detail_down.0"),
    *conv_bn(f"{AGGREGATION}semantic_up", "bga.semantic_conv.0"),
    *_gate(f"{AGGREGATION}semantic_keep", "bga.semantic_dwconv"),
    *conv_bn(f"{AGGREGATION}out", "bga.conv"),
)

_HEADS = (
    rename("head.classifier.*", "decode_head.conv_seg.*"),
    *conv_bn("head.conv", "decode_head.convs.0"),
    rename("aux_heads.{i}.classifier.*", "auxiliary_head.{i}.conv_seg.*"),
    *conv_bn("aux_heads.{i}.conv", "auxiliary_head.{i}.convs.0"),
    *conv_bn("aux_heads.{i}.conv2", "auxiliary_head.{i}.convs.1"),
)

FORMAT = Format(
    name="mmseg",
    architecture="bisenetv2",
    origin="mmsegmentation bisenetv2_fcn",
    licence="Apache-2.0",
    rules=(*under("backbone.", _BACKBONE), *_HEADS),
    variants=("bisenetv2_mmseg",),
    free=FREE_FIELDS,
    wrapper="state_dict",
)
