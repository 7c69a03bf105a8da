"""The authors' SETR: https://github.com/fudan-zvg/SETR.

The encoder has timm's names. What the classifier is called depends on the kind of head.
"""

from collections.abc import Mapping

from convert.changes import Shape
from convert.formats.format import Format
from convert.formats.setr import FREE_FIELDS
from convert.formats.timm_vit import ENCODER
from convert.rules import Extra, Rule, rename, under, where

_IS_MLA = "neck.norms.0.weight"
_IS_PUP = "head.convs.3.conv.weight"

NECK = (
    rename("neck.projs.{i}.conv.weight", "backbone.mla.mla_p{i+2}_1x1.0.weight"),
    rename("neck.projs.{i}.bn.*", "backbone.mla.mla_p{i+2}_1x1.1.*"),
    # Another letter, for the order: these come after all of those above, not in turns with them.
    rename("neck.convs.{j}.conv.weight", "backbone.mla.mla_p{j+2}.0.weight"),
    rename("neck.convs.{j}.bn.*", "backbone.mla.mla_p{j+2}.1.*"),
    rename("neck.norms.{i}.*", "backbone.norm_{i}.*"),
)


def _unused(foreign: str, native: str) -> tuple[Rule | Extra, ...]:
    """The classifier that every head inherits and none calls."""
    classifier, reason = f"{native}.classifier.weight", "is never called, the head has its own"

    def weight(leaves: Mapping[str, Shape]) -> Shape:
        return (leaves[classifier][0], 512, 1, 1)

    def bias(leaves: Mapping[str, Shape]) -> Shape:
        return leaves[classifier][:1]

    extras = (
        Extra(f"{foreign}.conv_seg.weight", reason, weight),
        Extra(f"{foreign}.conv_seg.bias", reason, bias),
    )
    return where(extras, having=classifier)


HEAD = (
    *_unused("decode_head", "head"),
    rename("head.norm.*", "decode_head.norm.*"),
    rename("head.convs.{i}.conv.*", "decode_head.conv_{i}.*"),
    *where([rename("head.classifier.*", "decode_head.conv_1.*")], lacking=(_IS_PUP, _IS_MLA)),
    *where([rename("head.classifier.*", "decode_head.conv_4.*")], having=_IS_PUP),
    rename("head.convs.{i}.bn.*", "decode_head.syncbn_fc_{i}.*"),
    rename("head.branches.{i}.conv1.conv.weight", "decode_head.mlahead.head{i+2}.0.weight"),
    rename("head.branches.{i}.conv1.bn.*", "decode_head.mlahead.head{i+2}.1.*"),
    rename("head.branches.{i}.conv2.conv.weight", "decode_head.mlahead.head{i+2}.3.weight"),
    rename("head.branches.{i}.conv2.bn.*", "decode_head.mlahead.head{i+2}.4.*"),
    *where([rename("head.classifier.*", "decode_head.cls.*")], having=_IS_MLA),
)


def _aux_head(index: int) -> tuple[Rule | Extra, ...]:
    native, foreign = f"aux_heads.{index}", f"auxiliary_head.{index}"
    return (
        *_unused(foreign, native),
        rename(f"{native}.norm.*", f"{foreign}.norm.*"),
        rename(f"{native}.convs.0.conv.*", f"{foreign}.conv_0.*"),
        *where([rename(f"{native}.classifier.*", f"{foreign}.conv_1.*")], lacking=_IS_MLA),
        rename(f"{native}.convs.0.bn.*", f"{foreign}.syncbn_fc_0.*"),
        *where([rename(f"{native}.classifier.*", f"{foreign}.aux.*")], having=_IS_MLA),
    )


AUX_HEADS = tuple(rule for index in range(4) for rule in _aux_head(index))

FORMAT = Format(
    name="original",
    architecture="setr",
    origin="the SETR authors' naive, PUP and MLA, at their fixed image size",
    licence="MIT",
    rules=(*under("backbone.", ENCODER), *NECK, *HEAD, *AUX_HEADS),
    variants=("setr_naive_original", "setr_pup_original", "setr_mla_original"),
    free=FREE_FIELDS,
    wrapper="state_dict",
)
