"""timm's Vision Transformers as ViTSeg's patch embedding, positions and blocks.

ViTSeg has no class token: its position, the table's first row, is left out, and zeros stand there
in an export. ViTSeg's norms have an epsilon of 1e-5 where timm's have 1e-6.
"""

from collections.abc import Sequence

import numpy as np

from convert.changes import Change, Shape
from convert.formats.format import Format
from convert.formats.timm_vit import FORMAT as TIMM_VIT
from convert.formats.timm_vit import HEAD_DIM, LAYERS
from convert.rules import Extra, Rule, rename


class _OfPatches(Change):
    """Positions of patches here, (n, D); there behind that of the class token, (1, 1 + n, D)."""

    def foreign_shapes(self, native: Sequence[Shape], count: int) -> list[Shape]:
        """One row more, and a leading axis."""
        ((patches, width),) = super().foreign_shapes(native, count)
        return [(1, 1 + patches, width)]

    def to_foreign(self, arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        """Zeros for the class token's."""
        return [np.pad(array, ((1, 0), (0, 0)))[None] for array in arrays]

    def to_native(self, arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        """Without the class token's."""
        return [array[0, 1:] for array in arrays]


NO_CLASS_TOKEN = "the network has no class token"
AFTER_THE_BLOCKS = "stands behind the blocks, where this network's head reads their output"

RULES: tuple[Rule | Extra, ...] = (
    Extra("cls_token", NO_CLASS_TOKEN, lambda leaves: (1, 1, leaves["pos_embed"][-1])),
    rename("pos_embed", "pos_embed", _OfPatches()),
    rename("patch_embed.proj.*", "patch_embed.proj.*"),
    *(rename(f"blocks.{{b}}.{layer}.*", f"blocks.{{b}}.{layer}.*") for layer in LAYERS),
    Extra("norm.weight", AFTER_THE_BLOCKS, lambda leaves: leaves["pos_embed"][-1:]),
    Extra("norm.bias", AFTER_THE_BLOCKS, lambda leaves: leaves["pos_embed"][-1:]),
    Extra("head.weight", "classifies ImageNet", lambda leaves: (1000, leaves["pos_embed"][-1])),
    Extra("head.bias", "classifies ImageNet", lambda leaves: (1000,)),
)

FORMAT = Format(
    name="timm",
    architecture="vitseg",
    origin=TIMM_VIT.origin,
    licence=TIMM_VIT.licence,
    rules=RULES,
    scope=("pos_embed", "patch_embed.", "blocks."),
    head_dim=HEAD_DIM,
    preprocess=TIMM_VIT.preprocess,
)
