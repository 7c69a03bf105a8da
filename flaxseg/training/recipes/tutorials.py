"""The tutorials' recipes, to the letter where they have one.

What differs: validation pictures are only stretched, where the tutorials also flip them at random;
SETR's running statistics between two evaluations are the training's own (the tutorial leaves the
re-estimated ones in place until the next batches have replaced them).
"""

from typing import Any

from flaxseg.training.recipes.recipe import Recipe


def _stretched(height: int, width: int) -> dict[str, Any]:
    """The whole picture at one size, flipped in both directions: the tutorials' CamVid pipeline."""
    return {
        "data": "camvid",
        "image_size": (height, width),
        "eval_size": (height, width),
        "resize": "stretch",
        "scale": (1.0, 1.0),
        "hflip": 0.5,
        "vflip": 0.5,
        "jitter": 0.0,
        "metrics": ("accuracy_of_all",),
        "train_accuracy": True,
    }


_SGD: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "epochs": 100,
}

_FALL: dict[str, Any] = {
    "schedule": "linear",
    "schedule_by": "epoch",
    # From 0.1 in the first of 75 epochs to 0.05 in the last: 74 times down.
    "schedule_epochs": 74,
    "min_lr": 0.05,
}

_CCNET = Recipe(
    "tutorial 001",
    _stretched(224, 224)
    | _SGD
    | {"batch_size": 8, "schedule": "step", "step_size": 50, "gamma": 0.5},
)

_SETR = Recipe(
    "tutorial 000",
    # Its evaluations with averaged weights come after epochs 75, 80 ... 100.
    _stretched(256, 256)
    | _SGD
    | _FALL
    | {"batch_size": 4, "swa_start": 75, "swa_every": 1, "swa_lr": 0.05, "eval_every": 5},
)

_BISENETV2 = Recipe("tutorial 004", _stretched(448, 448) | _SGD | _FALL | {"batch_size": 16})

_SEGFORMER = Recipe(
    "tutorial 003 trains nothing: data as in 001, optimiser as in the paper",
    _stretched(224, 224)
    | {
        "batch_size": 8,
        "epochs": 100,
        "optimizer": "adamw",
        "lr": 6e-5,
        "weight_decay": 0.01,
        "no_decay": ("layer_norm",),
        "head_lr": 10.0,
        "schedule": "poly",
        "power": 1.0,
        "warmup_steps": 1500,
        "warmup_ratio": 1e-6,
    },
    start="mit_b0.pth",
)

_PETS = Recipe(
    "tutorial 002, the Pet notebook",
    {
        "data": "pets",
        "image_size": (128, 128),
        "eval_size": (128, 128),
        "resize": "stretch",
        "scale": (1.0, 1.0),
        "hflip": 0.5,
        "vflip": 0.0,
        "jitter": 0.3,
        "color": "contrast",
        "interpolation": "nearest",
        # The network's first layer normalises.
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "batch_size": 64,
        "eval_batch_size": 21,
        "metrics": ("micro_iou:background", "soft_iou"),
        "epochs": 50,
        "optimizer": "adam",
        "lr": 4e-4,
        "weight_decay": 0.0,
        "schedule": "step",
        "step_size": 12,
        "gamma": 0.8,
    },
)

TUTORIALS: dict[str, Recipe] = {
    "ccnet": _CCNET,
    "setr": _SETR,
    "segformer": _SEGFORMER,
    "bisenetv2": _BISENETV2,
    "bisenetv2_matmul": _BISENETV2,
    "vitseg": _PETS,
}
"""By network."""
