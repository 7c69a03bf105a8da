"""The BiSeNetV2 tutorial: separable convolutions, biases in front of norms, one head twice."""

from convert.changes import Twins
from convert.formats.bisenetv2 import AGGREGATION, FREE_FIELDS, SEMANTIC, conv_bn, in_sequence
from convert.formats.format import Format
from convert.rules import Rule, rename


def _separable(native: str, conv: str, bn: str) -> tuple[Rule, ...]:
    return (
        rename(f"{native}.depthwise.*", f"{conv}.depthwise.*"),
        rename(f"{native}.pointwise.*", f"{conv}.pointwise.*"),
        rename(f"{native}.bn.*", f"{bn}.*"),
    )


def _gate(native: str, foreign: str) -> tuple[Rule, ...]:
    return (
        *_separable(f"{native}.spatial", f"{foreign}.0", f"{foreign}.1"),
        rename(f"{native}.project.*", f"{foreign}.2.*"),
    )


_LAYER, _PEER_LAYER = f"{SEMANTIC}stages.{{s}}.{{b}}", "semantic.semantic_stages.{s+1}.{b}"
_STEM, _PEER_STEM = f"{SEMANTIC}stem", "semantic.semantic_stages.0"
_CONTEXT, _PEER_CONTEXT = f"{SEMANTIC}context", "semantic.semantic_stages.4"

_BRANCHES = (
    *conv_bn(
        "backbone.detail.stages.{s}.{k}",
        "detail.detail_branch.{s}.{3*k}",
        "detail.detail_branch.{s}.{3*k+1}",
    ),
    *in_sequence(f"{_STEM}.conv", f"{_PEER_STEM}.conv_in"),
    *in_sequence(f"{_STEM}.reduce", f"{_PEER_STEM}.conv_branch"),
    *in_sequence(f"{_STEM}.down", f"{_PEER_STEM}.conv_branch", 3),
    *in_sequence(f"{_STEM}.fuse", f"{_PEER_STEM}.fusion"),
    *in_sequence(f"{_LAYER}.conv1", f"{_PEER_LAYER}.conv1"),
    *in_sequence(f"{_LAYER}.expand", f"{_PEER_LAYER}.dwconv"),
    *_separable(
        f"{_LAYER}.spatial.{{i}}",
        f"{_PEER_LAYER}.dwconv.{{2*i+3}}",
        f"{_PEER_LAYER}.dwconv.{{2*i+4}}",
    ),
    *_separable(
        f"{_LAYER}.shortcut.spatial", f"{_PEER_LAYER}.shortcut.0", f"{_PEER_LAYER}.shortcut.1"
    ),
    *in_sequence(f"{_LAYER}.shortcut.project", f"{_PEER_LAYER}.shortcut", 2),
    *in_sequence(f"{_LAYER}.project", f"{_PEER_LAYER}.conv2"),
    rename(f"{_CONTEXT}.conv_gap.*", f"{_PEER_CONTEXT}.conv_gap.0.*"),
    rename(f"{_CONTEXT}.conv_last.*", f"{_PEER_CONTEXT}.conv_last.*"),
)

_AGGREGATION = (
    *_gate(f"{AGGREGATION}detail_keep", "AggregationLayer.Conv_DetailBranch_1"),
    *in_sequence(f"{AGGREGATION}detail_down", "AggregationLayer.Conv_DetailBranch_2"),
    *in_sequence(f"{AGGREGATION}semantic_up", "AggregationLayer.Conv_SemanticBranch_1"),
    *_gate(f"{AGGREGATION}semantic_keep", "AggregationLayer.Conv_SemanticBranch_2"),
    *in_sequence(f"{AGGREGATION}out", "AggregationLayer.conv_out"),
)

_HEAD = {"conv.conv": 0, "conv.bn": 1, "classifier": 3}
"""Part of a head -> its place in the peer's sequence."""

_HEADS = (
    # The peer registers its head twice, the second time as the first of the auxiliary heads.
    *(
        rename(
            f"head.{part}.*",
            (f"seg_head_aggre.cls_seg.{place}.*", f"seg_heads.0.cls_seg.{place}.*"),
            Twins(),
        )
        for part, place in _HEAD.items()
    ),
    *(
        rename(f"aux_heads.{{i}}.{part}.*", f"seg_heads.{{i+1}}.cls_seg.{place}.*")
        for part, place in _HEAD.items()
    ),
)

FORMAT = Format(
    name="tutorial",
    architecture="bisenetv2",
    origin="BiSeNetV2 tutorial, state dict of the bare network",
    rules=(*_BRANCHES, *_AGGREGATION, *_HEADS),
    # The tutorial multiplies matrices. Its keys are those of the mended network too.
    variants=("bisenetv2_matmul", "bisenetv2"),
    free=FREE_FIELDS | {"fusion"},
)
