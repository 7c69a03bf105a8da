"""Named sets of defaults for a training run."""

import dataclasses
import os
from typing import Any

from flaxseg.errors import ConfigError, did_you_mean
from flaxseg.models import architecture_of, get_config
from flaxseg.training.config import TrainConfig

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

_TUTORIALS: dict[str, dict[str, Any]] = {
    "ccnet": {
        "epochs": 100,
        "batch_size": 8,
        "image_size": (224, 224),
        "lr": 0.1,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "schedule": "step",
        "step_size": 50,
        "gamma": 0.5,
        "resize": "stretch",
        "scale": (1.0, 1.0),
        "hflip": 0.5,
        "vflip": 0.5,
        "jitter": 0.0,
        "eval_size": (224, 224),
    },
}
"""The tutorials' settings by network."""

RECIPES = ("default", "tutorial")


def make_config(
    model: str = "ccnet", data: str = "shapes", recipe: str = "default", **fields: Any
) -> TrainConfig:
    """The validated config of a recipe for a model and a data set.

    Args:
        model: network name.
        data: data set name.
        recipe: one of `RECIPES`.
        **fields: fields of `TrainConfig` that differ from the recipe.

    Raises:
        ConfigError: if the recipe is unknown or has no settings for the model, or a field is
            unknown or its value does not fit.
    """
    settings = _settings(model, data, recipe) | fields
    return TrainConfig.from_json({"model": model, "data": data, "recipe": recipe} | settings)


def _settings(model: str, data: str, recipe: str) -> dict[str, Any]:
    if recipe not in RECIPES:
        raise ConfigError(f"--recipe {recipe!r} is unknown{did_you_mean(recipe, RECIPES)}")
    if recipe == "default":
        network = _NETWORKS[architecture_of(get_config(model))]
        return network | (_SHAPES if data == "shapes" else _PHOTOGRAPHS)
    if model not in _TUTORIALS:
        raise ConfigError(
            f"--recipe tutorial has no settings for --model {model}, only for "
            f"{', '.join(_TUTORIALS)}; leave --recipe out for the default"
        )
    return _TUTORIALS[model]


def resolved(config: TrainConfig) -> TrainConfig:
    """The config with its default work directory filled in, and the data's absolute folder.

    What a work directory records thus holds wherever the next command is called.
    """
    data_dir = None if config.data_dir is None else os.path.abspath(config.data_dir)
    return dataclasses.replace(config, workdir=str(config.directory), data_dir=data_dir)
