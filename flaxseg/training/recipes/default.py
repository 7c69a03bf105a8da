"""The default recipe: any network, from random numbers, on any pictures."""

from typing import Any

from flaxseg.training.recipes.recipe import Recipe

_SHAPES: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 8,
    "image_size": (64, 64),
    "scale": (1.0, 1.0),
}

_PHOTOGRAPHS: dict[str, Any] = {
    "epochs": 100,
    "batch_size": 8,
    "image_size": (224, 224),
    "warmup_epochs": 1.0,
    "jitter": 0.3,
    "eval_every": 2,
}

_CONVOLUTIONS = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9}
_TRANSFORMERS = {"optimizer": "adamw", "weight_decay": 0.01, "power": 1.0}

_NETWORKS: dict[str, dict[str, Any]] = {
    "bisenetv2": {**_CONVOLUTIONS, "weight_decay": 5e-4},
    "ccnet": {**_CONVOLUTIONS, "weight_decay": 5e-4},
    "segformer": {**_TRANSFORMERS, "lr": 6e-4},
    "setr": {**_TRANSFORMERS, "lr": 1e-4},
    "vitseg": {**_TRANSFORMERS, "lr": 4e-4},
}
"""Optimisers by architecture, for weights that start from random numbers."""


def default_recipe(architecture: str, data: str) -> Recipe:
    """The recipe that runs use when none is named."""
    pictures = _SHAPES if data == "shapes" else _PHOTOGRAPHS
    return Recipe("flaxseg", _NETWORKS[architecture] | pictures)
