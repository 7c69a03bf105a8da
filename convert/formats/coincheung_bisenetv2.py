"""https://github.com/CoinCheung/BiSeNet, lib/models/bisenetv2.py."""

from collections.abc import Iterator

from convert.formats.bisenetv2 import AGGREGATION, FREE_FIELDS, SEMANTIC, conv_bn, in_sequence
from convert.formats.format import Format
from convert.rules import Rule, rename
from flaxseg.preprocess import Preprocess

_STAGES = {"S3": 2, "S4": 2, "S5_4": 4}
"""Stage of the semantic branch -> its gather-and-expansion layers."""


def _layers() -> Iterator[Rule]:
    """Every layer by itself: the names inside the first of a stage are others."""
    for stage, (name, count) in enumerate(_STAGES.items()):
        for layer in range(count):
            native, foreign = f"{SEMANTIC}stages.{stage}.{layer}", f"segment.{name}.{layer}"
            first = layer == 0
            yield from conv_bn(f"{native}.conv1", f"{foreign}.conv1")
            yield from in_sequence(f"{native}.expand", f"{foreign}.dwconv{'1' if first else ''}")
            if first:
                yield from in_sequence(f"{native}.spatial.0", f"{foreign}.dwconv2")
            yield from in_sequence(f"{native}.project", f"{foreign}.conv2")
            if first:
                yield from in_sequence(f"{native}.shortcut.spatial", f"{foreign}.shortcut")
                yield from in_sequence(f"{native}.shortcut.project", f"{foreign}.shortcut", 2)


def _gate(native: str, foreign: str) -> tuple[Rule, ...]:
    return (
        *in_sequence(f"{native}.spatial", foreign),
        rename(f"{native}.project.*", f"{foreign}.2.*"),
    )


def _aux_heads() -> Iterator[Rule]:
    for i, name in enumerate(("aux2", "aux3", "aux4", "aux5_4")):
        yield from conv_bn(f"aux_heads.{i}.conv", f"{name}.conv")
        yield from conv_bn(f"aux_heads.{i}.conv2", f"{name}.conv_out.0.1")
        yield rename(f"aux_heads.{i}.classifier.*", f"{name}.conv_out.1.*")


RULES = (
    *conv_bn("backbone.detail.stages.{s}.{k}", "detail.S{s+1}.{k}"),
    *conv_bn(f"{SEMANTIC}stem.conv", "segment.S1S2.conv"),
    *conv_bn(f"{SEMANTIC}stem.reduce", "segment.S1S2.left.0"),
    *conv_bn(f"{SEMANTIC}stem.down", "segment.S1S2.left.1"),
    *conv_bn(f"{SEMANTIC}stem.fuse", "segment.S1S2.fuse"),
    *_layers(),
    rename(f"{SEMANTIC}context.bn.*", "segment.S5_5.bn.*"),
    *conv_bn(f"{SEMANTIC}context.conv_gap", "segment.S5_5.conv_gap"),
    *conv_bn(f"{SEMANTIC}context.conv_last", "segment.S5_5.conv_last"),
    *_gate(f"{AGGREGATION}detail_keep", "bga.left1"),
    *in_sequence(f"{AGGREGATION}detail_down", "bga.left2"),
    *in_sequence(f"{AGGREGATION}semantic_up", "bga.right1"),
    *_gate(f"{AGGREGATION}semantic_keep", "bga.right2"),
    *in_sequence(f"{AGGREGATION}out", "bga.conv"),
    *conv_bn("head.conv", "head.conv"),
    rename("head.classifier.*", "head.conv_out.1.*"),
    *_aux_heads(),
)

PREPROCESS = {
    # Cityscapes, ADE20K and COCO-Stuff
    19: Preprocess((0.3257, 0.3690, 0.3223), (0.2112, 0.2148, 0.2115)),
    150: Preprocess((0.49343230, 0.46819794, 0.43106043), (0.25680755, 0.25506608, 0.27422913)),
    171: Preprocess((0.46962251, 0.4464104, 0.40718787), (0.27469736, 0.27012361, 0.28515933)),
}
"""Each data set's own mean and deviation, by its number of classes."""

FORMAT = Format(
    name="coincheung",
    architecture="bisenetv2",
    origin="CoinCheung BiSeNet, bisenetv2",
    licence="MIT",
    rules=RULES,
    variants=("bisenetv2_coincheung",),
    free=FREE_FIELDS,
    preprocess=None,
    by_classes=PREPROCESS,
)
