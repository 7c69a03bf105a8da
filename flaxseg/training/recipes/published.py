"""The recipes that the networks were published with, for ADE20K and Cityscapes.

The numbers are those of mmsegmentation's first releases, whose checkpoints stand in its tables, and
of the authors' repositories. Epochs between evaluations are about a tenth of the run.
"""

from typing import Any

from flaxseg.models import list_models
from flaxseg.training.recipes.recipe import Recipe

_CROPS: dict[str, Any] = {
    "resize": "crop",
    "scale": (0.5, 2.0),
    "scale_law": "uniform",
    "hflip": 0.5,
    "vflip": 0.0,
    "jitter": 0.0,
    "log_every": 50,
}
_MMSEG = _CROPS | {"cat_max_ratio": 0.75, "color": "photometric", "loss_average": "all"}
"""Pictures as mmsegmentation changes them, and the mean that it takes of the loss."""

_ADE20K = {"data": "ade20k", "batch_size": 16, "steps": 160_000, "eval_every": 12}
VARIED = {"eval_multiple": 32, "eval_batch_size": 1}
"""Few pictures share a size: NVlabs stretches both sides up to multiples of 32."""

_CITYSCAPES = {"data": "cityscapes", "batch_size": 8, "eval_every": 20}

_SGD: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 0.01,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "schedule": "poly",
    "power": 0.9,
    "min_lr": 1e-4,
}
"""mmsegmentation's schedules of 40 to 160 thousand steps."""

_SETR = _SGD | {"weight_decay": 0.0, "head_lr": 10.0}

_SEGFORMER: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 6e-5,
    "betas": (0.9, 0.999),
    "weight_decay": 0.01,
    "no_decay": ("layer_norm",),
    "head_lr": 10.0,
    "schedule": "poly",
    "power": 1.0,
    "min_lr": 0.0,
    "warmup_steps": 1500,
    "warmup_ratio": 1e-6,
}

_COINCHEUNG = _SGD | {
    "jitter": 0.4,
    "loss": ("ohem",),
    "lr": 5e-3,
    "head_lr": 10.0,
    "no_decay": ("layer_norm", "batch_norm", "bias"),
    "min_lr": 0.0,
    "warmup": "exponential",
    "warmup_steps": 1000,
    "warmup_ratio": 0.1,
    "after_warmup": True,
    "batch_size": 16,
}

_RESNET = "an ImageNet ResNet, such as torchvision's or mmsegmentation's resnet50_v1c"
_VIT_L = "timm's vit_large_patch16_384"
_MIT = "the encoder of the same size, such as mit_b0.pth or hf:nvidia/mit-b0"


def _size(height: int, width: int | None = None, **fields: Any) -> dict[str, Any]:
    return {"image_size": (height, width or height), **fields}


def _based(longer: int, shorter: int) -> dict[str, Any]:
    """Pictures are fitted into a size, in training and evaluation."""
    size = (longer, shorter)
    return {"base_size": size, "eval_base_size": size, **VARIED}


def _windows(side: int, stride: int) -> dict[str, Any]:
    return {"eval_window": (side, side), "eval_stride": (stride, stride), "eval_multiple": 1}


def _ade20k() -> dict[str, Recipe]:
    mmseg = _ADE20K | _MMSEG | _based(2048, 512)
    ccnet = Recipe("mmsegmentation", mmseg | _SGD | _size(512), _RESNET)
    windows = _windows(512, 341)
    naive = Recipe("mmsegmentation and authors", mmseg | _SETR | _size(512) | windows, _VIT_L)
    pup = naive.but(naive.source, lr=1e-3)
    segformer = Recipe("NVlabs and mmsegmentation", mmseg | _SEGFORMER | _size(512), _MIT)
    largest = segformer.but("NVlabs", image_size=(640, 640), **_based(2560, 640))
    colours = {
        "mean": (0.49343230, 0.46819794, 0.43106043),
        "std": (0.25680755, 0.25506608, 0.27422913),
    }
    ours = _COINCHEUNG | colours | _size(640, weight_decay=1e-4) | VARIED
    bisenet = Recipe("CoinCheung", _ADE20K | _CROPS | ours)
    return {
        "ccnet_r50": ccnet,
        "ccnet_r101": ccnet,
        "ccnet*": ccnet.but("as ccnet_r50"),
        "setr_naive": naive,
        "setr_naive_original": naive,
        "setr_naive*": naive.but("as setr_naive"),
        "setr": pup.but("as setr_pup"),
        "setr_*_cityscapes": pup.but("as setr_pup"),
        "setr_*": pup,
        "segformer_b5": largest,
        "segformer_b5_hf": largest,
        "segformer": segformer.but("as segformer_b0"),
        "segformer_*": segformer,
        "bisenetv2_coincheung": bisenet,
        "bisenetv2*": bisenet.but("as bisenetv2_coincheung"),
    }


def _cityscapes() -> dict[str, Recipe]:
    mmseg, plain = _CITYSCAPES | _MMSEG, _CITYSCAPES | _CROPS
    ccnet = Recipe("mmsegmentation", mmseg | _SGD | _size(512, 1024, steps=80_000), _RESNET)
    # Blue, green and red from 0 to 255, less their means.
    means = (122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255)
    authors = {"channels": "bgr", "mean": means, "std": (1 / 255, 1 / 255, 1 / 255)}
    authors |= {"weight_decay": 1e-4, "min_lr": 0.0, "loss_align_corners": True}
    original = Recipe(
        "speedinghzl/CCNet", plain | _SGD | authors | _size(769, steps=60_000), _RESNET
    )
    setr = Recipe(
        "mmsegmentation and authors",
        mmseg | _SETR | _size(768, steps=80_000) | _windows(768, 512),
        _VIT_L,
    )
    mla = setr.but(setr.source, lr=2e-3)
    segformer = Recipe(
        "NVlabs and mmsegmentation",
        mmseg | _SEGFORMER | _size(1024, steps=160_000) | _windows(1024, 768),
        _MIT,
    )
    long = {"steps": 160_000, "batch_size": 16, "eval_every": 80}
    warm = {"lr": 0.05, "warmup_steps": 1000, "warmup_ratio": 0.1}
    bisenet = Recipe("mmsegmentation", mmseg | _SGD | warm | long | _size(1024))
    colours = {"mean": (0.3257, 0.3690, 0.3223), "std": (0.2112, 0.2148, 0.2115)}
    coincheung = Recipe(
        "CoinCheung",
        plain | _COINCHEUNG | colours | long | _size(512, 1024, steps=150_000, scale=(0.25, 2.0)),
    )
    # The paper magnifies by 0.75 to 2, cuts out 1024 x 2048 and halves it, in evaluations too.
    halved = {"scale": (0.375, 1.0), "eval_base_size": (1024, 512)}
    halved |= {"steps": 150_000, "lr": 0.05, "min_lr": 0.0, "loss": ("ohem",)}
    no_decay = {"no_decay": ("layer_norm", "batch_norm", "bias")}
    paper = Recipe("paper", plain | _SGD | long | halved | no_decay | _size(512, 1024))
    return {
        "ccnet_r101_original": original,
        "ccnet": ccnet.but("as ccnet_r50"),
        "ccnet_*": ccnet,
        "setr": setr.but("as setr_pup_cityscapes"),
        "setr_mla_cityscapes": mla,
        "setr_mla_original": mla,
        "setr_mla": mla.but("as setr_mla_cityscapes"),
        "setr_*_cityscapes": setr,
        "setr_*_original": setr,
        "setr_*": setr.but("as setr_pup_cityscapes"),
        "segformer": segformer.but("as segformer_b0"),
        "segformer_*": segformer,
        "bisenetv2_mmseg": bisenet,
        "bisenetv2_coincheung": coincheung,
        "bisenetv2_matmul": paper.but("paper, on squares", image_size=(512, 512)),
        "bisenetv2": paper,
    }


def by_network(patterns: dict[str, Recipe]) -> dict[str, Recipe]:
    """Every network's recipe, by the first shell pattern that names it."""
    found: dict[str, Recipe] = {}
    for pattern, recipe in patterns.items():
        for name in list_models(pattern):
            found.setdefault(name, recipe)
    return found


ADE20K = by_network(_ade20k())
CITYSCAPES = by_network(_cityscapes())
"""By network."""
