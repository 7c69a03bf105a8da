"""Every network in a configuration small enough for a laptop, and where it is compared."""

from typing import Any, NamedTuple

from flaxseg import models

Size = tuple[int, int]


class Comparison(NamedTuple):
    """How a network is compared with its twin.

    Attributes:
        overrides: fields that make it narrow and shallow; no design choice is left out.
        sizes: two image sizes (H, W), one odd and not square where the network takes that.
        batch: images of a batch; more than 2 where a BatchNorm sees one value for each of them.
        published: the size at which the whole network is compared in float32; None: not at all.
        distinct: False where it differs from another in widths, depths and epsilons alone: the test
            suite leaves these to the command, and the command trains them in float32 on request.
    """

    overrides: dict[str, Any]
    sizes: tuple[Size, Size] = ((33, 47), (40, 64))
    batch: int = 2
    published: Size | None = None
    distinct: bool = True


_CCNET = {"num_classes": 5, "backbone.width": 8, "channels": 32}
_CCNET_PUBLISHED = {**_CCNET, "backbone.stem_channels": (4, 4, 8), "aux_channels": 16}

COMPARISONS: dict[str, Comparison] = {
    "ccnet": Comparison(
        {**_CCNET, "backbone.stem_channels": (8,), "backbone.blocks": (1, 2, 1, 2)},
        published=(224, 224),
    ),
    "ccnet_r50": Comparison({**_CCNET_PUBLISHED, "backbone.blocks": (1, 2, 1, 2)}),
    "ccnet_r101": Comparison({**_CCNET_PUBLISHED, "backbone.blocks": (1, 1, 3, 1)}, distinct=False),
    "ccnet_r101_original": Comparison({**_CCNET_PUBLISHED, "backbone.blocks": (1, 2, 1, 2)}),
}

_SEGFORMER = {"num_classes": 5, "backbone.widths": (8, 12, 20, 24), "channels": 16}
_SEGFORMER_DEPTHS = {
    "b0": (1, 2, 1, 1),
    "b1": (2, 1, 1, 1),
    "b2": (1, 1, 2, 1),
    "b3": (1, 1, 3, 1),
    "b4": (1, 2, 3, 1),
    "b5": (1, 1, 4, 1),
}


COMPARISONS["segformer"] = Comparison(
    {**_SEGFORMER, "backbone.depths": (1, 1, 2, 1)}, published=(512, 512)
)
COMPARISONS |= {
    f"segformer_{size}{suffix}": Comparison(
        {**_SEGFORMER, "backbone.depths": depths}, distinct=size == "b0" and suffix != ""
    )
    for suffix in ("", "_hf", "_mmseg")
    for size, depths in _SEGFORMER_DEPTHS.items()
}

COMPARISONS["vitseg"] = Comparison(
    {
        "num_classes": 5,
        "image_size": (32, 48),
        "patch_size": 8,
        "width": 24,
        "depth": 2,
        "mlp_dim": 32,
    },
    sizes=((32, 48), (40, 24)),
    published=(128, 128),
)

_BISENETV2 = {
    "num_classes": 5,
    "backbone.detail_channels": (6, 8, 12),
    "backbone.detail_layers": (1, 2, 1),
    "backbone.semantic_channels": (4, 6, 8, 12),
    "backbone.semantic_layers": (1, 1, 2),
    "backbone.expansion": 3,
    "head_channels": 16,
    "aux_channels": (4, 6, 8, 10),
}

COMPARISONS |= {
    "bisenetv2": Comparison(_BISENETV2, sizes=((64, 96), (96, 32)), published=(448, 448)),
    "bisenetv2_matmul": Comparison(_BISENETV2, sizes=((64, 64), (96, 96))),
    "bisenetv2_mmseg": Comparison(_BISENETV2, batch=4),
    "bisenetv2_coincheung": Comparison(_BISENETV2, sizes=((64, 96), (96, 32)), batch=4),
}

_SETR = {
    "num_classes": 5,
    "backbone.image_size": (32, 48),
    "backbone.patch_size": 8,
    "backbone.width": 32,
    "backbone.depth": 4,
    "backbone.mlp_dim": 24,
    "backbone.out_indices": (0, 1, 2, 3),
    "channels": 8,
    "level_channels": 4,
}


def _setr(
    sizes: tuple[Size, Size], published: Size | None = None, distinct: bool = True
) -> Comparison:
    return Comparison(_SETR, sizes=sizes, published=published, distinct=distinct)


_SETR_FIXED, _SETR_ANY = ((32, 48), (48, 32)), ((37, 50), (32, 48))

COMPARISONS |= {
    "setr": _setr(_SETR_FIXED, published=(256, 256)),
    "setr_naive": _setr(_SETR_ANY, distinct=False),
    "setr_pup": _setr(_SETR_ANY),
    "setr_mla": _setr(_SETR_ANY),
    "setr_naive_cityscapes": _setr(_SETR_ANY, distinct=False),
    "setr_pup_cityscapes": _setr(_SETR_ANY, distinct=False),
    "setr_mla_cityscapes": _setr(_SETR_ANY, distinct=False),
    "setr_naive_original": _setr(_SETR_FIXED, distinct=False),
    "setr_pup_original": _setr(_SETR_FIXED, distinct=False),
    "setr_mla_original": _setr(_SETR_FIXED),
}


def small_config(name: str) -> models.Config:
    """The small configuration of a named network."""
    return models.get_config(name, **COMPARISONS[name].overrides)
