"""What the shapes of a network's tensors tell about its configuration.

A published file says by its shapes how many classes it has, how deep and wide it is, for which
image size its positions are. The rest comes from the variant that its keys belong to.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from convert.changes import Shape
from flaxseg import models
from flaxseg.errors import ConfigError

Shapes = Mapping[str, Shape]
"""Native key -> shape. A peer may have more axes behind the first, or flat ones."""


def reveal(variant: models.Config, shapes: Shapes) -> models.Config:
    """The variant with the fields that shapes tell.

    Where a tensor that tells a field is missing, the variant's own value stays: whoever compares
    all tensors afterwards names it.

    Args:
        variant: a configuration of the same architecture and design.
        shapes: of the tensors found, under native keys.
    """
    overrides = {}
    for field, read in FIELDS[models.architecture_of(variant)].items():
        try:
            overrides[field] = read(variant, shapes)
        except (KeyError, IndexError, ZeroDivisionError):
            continue
    try:
        return models.override(variant, overrides)
    except ConfigError:
        return variant


def count(shapes: Shapes, prefix: str) -> int:
    """How many numbers stand behind a prefix such as "backbone.stages."."""
    return len({key.removeprefix(prefix).split(".")[0] for key in shapes if key.startswith(prefix)})


def _counted(shapes: Shapes, prefix: str) -> int:
    found = count(shapes, prefix)
    if not found:
        raise KeyError(prefix)
    return found


def _axis(key: str, axis: int = 0) -> Callable[[Any, Shapes], int]:
    """Reads the length of an axis."""
    return lambda variant, shapes: shapes[key][axis]


def _square(tokens: int, patch: int, usual: tuple[int, int]) -> tuple[int, int]:
    """The image size behind a number of positions: the usual one if it fits, else a square."""
    if math.prod(side // patch for side in usual) == tokens:
        return usual
    side = math.isqrt(tokens)
    return (side * patch, side * patch) if side * side == tokens else usual


def _ccnet_blocks(variant: models.CCNetConfig, shapes: Shapes) -> tuple[int, ...]:
    stages = range(len(variant.backbone.blocks))
    return tuple(_counted(shapes, f"backbone.stages.{s}.blocks.") for s in stages)


def _ccnet_stem(variant: models.CCNetConfig, shapes: Shapes) -> tuple[int, ...]:
    layers = range(_counted(shapes, "backbone.stem."))
    return tuple(shapes[f"backbone.stem.{i}.conv.weight"][0] for i in layers)


def _ccnet_aux(variant: models.CCNetConfig, shapes: Shapes) -> int:
    return shapes["aux_head.conv.bn.weight"][0] if count(shapes, "aux_head.") else 0


def _ccnet_aux_weights(variant: models.CCNetConfig, shapes: Shapes) -> tuple[float, ...]:
    return variant.aux_weights if count(shapes, "aux_head.") else ()


def _segformer_stages(shapes: Shapes) -> list[str]:
    return [f"backbone.stages.{s}." for s in range(_counted(shapes, "backbone.stages."))]


def _segformer_widths(variant: models.SegFormerConfig, shapes: Shapes) -> tuple[int, ...]:
    return tuple(shapes[f"{stage}norm.weight"][0] for stage in _segformer_stages(shapes))


def _segformer_depths(variant: models.SegFormerConfig, shapes: Shapes) -> tuple[int, ...]:
    return tuple(_counted(shapes, f"{stage}blocks.") for stage in _segformer_stages(shapes))


def _segformer_reductions(variant: models.SegFormerConfig, shapes: Shapes) -> tuple[int, ...]:
    keys = (f"{stage}blocks.0.attn.sr.weight" for stage in _segformer_stages(shapes))
    return tuple(shapes[key][-1] if key in shapes else 1 for key in keys)


def _segformer_mlp_ratio(variant: models.SegFormerConfig, shapes: Shapes) -> int:
    first = _segformer_stages(shapes)[0]
    return shapes[f"{first}blocks.0.mlp.fc1.bias"][0] // shapes[f"{first}norm.weight"][0]


def _setr_patch(variant: models.SETRConfig, shapes: Shapes) -> int:
    return _patch(shapes["backbone.patch_embed.proj.weight"], variant.backbone.patch_size)


def _setr_image(variant: models.SETRConfig, shapes: Shapes) -> tuple[int, int]:
    tokens = shapes["backbone.pos_embed"][1] - 1  # without that of the class token
    return _square(tokens, _setr_patch(variant, shapes), variant.backbone.image_size)


def _patch(shape: Shape, usual: int) -> int:
    """The side of a patch, from a convolution's kernel or that of a layer on flat patches.

    Images of other than three channels do not tell it in the latter: it is the usual one then.
    """
    if len(shape) == 4:
        return shape[-1]
    side = math.isqrt(shape[1] // 3)
    return side if shape[1] == 3 * side * side else usual


def _vitseg_patch(variant: models.ViTSegConfig, shapes: Shapes) -> int:
    return _patch(shapes["patch_embed.proj.weight"], variant.patch_size)


def _vitseg_image(variant: models.ViTSegConfig, shapes: Shapes) -> tuple[int, int]:
    table = shapes["pos_embed"]
    # With an axis for the batch, as timm's, it has a row for the class token too.
    tokens = table[-2] - (len(table) == 3)
    return _square(tokens, _vitseg_patch(variant, shapes), variant.image_size)


def _vitseg_classes(variant: models.ViTSegConfig, shapes: Shapes) -> int:
    return shapes["head.bias"][0] // _vitseg_patch(variant, shapes) ** 2


def _bisenetv2_aux(variant: models.BiSeNetV2Config, shapes: Shapes) -> tuple[int, ...]:
    heads = range(count(shapes, "aux_heads."))
    return tuple(shapes[f"aux_heads.{i}.conv.bn.weight"][0] for i in heads)


def _bisenetv2_aux_weights(variant: models.BiSeNetV2Config, shapes: Shapes) -> tuple[float, ...]:
    return variant.aux_weights[: count(shapes, "aux_heads.")]


FIELDS: dict[str, dict[str, Callable[[Any, Shapes], Any]]] = {
    "bisenetv2": {
        "num_classes": _axis("head.classifier.bias"),
        "head_channels": _axis("head.conv.bn.weight"),
        "aux_channels": _bisenetv2_aux,
        "aux_weights": _bisenetv2_aux_weights,
    },
    "ccnet": {
        "num_classes": _axis("head.classifier.bias"),
        "backbone.blocks": _ccnet_blocks,
        "backbone.width": _axis("backbone.stages.0.blocks.0.bn1.weight"),
        "backbone.stem_channels": _ccnet_stem,
        "channels": _axis("head.conv_in.bn.weight"),
        "aux_channels": _ccnet_aux,
        "aux_weights": _ccnet_aux_weights,
    },
    "segformer": {
        "num_classes": _axis("head.classifier.bias"),
        "backbone.widths": _segformer_widths,
        "backbone.depths": _segformer_depths,
        "backbone.reductions": _segformer_reductions,
        "backbone.mlp_ratio": _segformer_mlp_ratio,
        "channels": _axis("head.fuse.bn.weight"),
    },
    "setr": {
        "num_classes": _axis("head.classifier.bias"),
        "backbone.patch_size": _setr_patch,
        "backbone.image_size": _setr_image,
        "backbone.mlp_dim": _axis("backbone.blocks.0.mlp.fc1.bias"),
    },
    "vitseg": {
        "num_classes": _vitseg_classes,
        "patch_size": _vitseg_patch,
        "image_size": _vitseg_image,
        "width": _axis("pos_embed", -1),
        "depth": lambda variant, shapes: _counted(shapes, "blocks."),
        "mlp_dim": _axis("blocks.0.mlp.fc1.bias"),
    },
}
"""Architecture -> dotted field -> what reads it."""
