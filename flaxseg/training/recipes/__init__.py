"""Named sets of defaults for a training run."""

from typing import Any

from flaxseg.errors import ConfigError, did_you_mean
from flaxseg.models import architecture_of, get_config
from flaxseg.training.config import TrainConfig
from flaxseg.training.config_file import read_config_file
from flaxseg.training.recipes.default import default_recipe
from flaxseg.training.recipes.derived import CAMVID, PETS
from flaxseg.training.recipes.published import ADE20K, CITYSCAPES
from flaxseg.training.recipes.recipe import Recipe as Recipe
from flaxseg.training.recipes.tutorials import TUTORIALS

NAMED: dict[str, dict[str, Recipe]] = {
    "tutorial": TUTORIALS,
    "ade20k": ADE20K,
    "cityscapes": CITYSCAPES,
    "camvid": CAMVID,
    "pets": PETS,
}
"""Recipe by name and network; "default" is there for all."""

RECIPES = ("default", *NAMED)

IN_STEPS = {"epochs": "steps", "warmup_epochs": "warmup_steps"}
"""Lengths in epochs, and the fields that would hide them: whoever names the one means it."""


def make_config(
    model: str | None = None,
    data: str | None = None,
    recipe: str | None = None,
    config: str | None = None,
    **fields: Any,
) -> TrainConfig:
    """The validated config of a recipe for a model and a data set.

    What is given here beats the file, and the file beats the recipe.

    Args:
        model: network name, "ccnet" if None.
        data: data set name; the recipe's own if None, or "shapes".
        recipe: one of `RECIPES`, "default" if None.
        config: YAML file of settings.
        **fields: fields of `TrainConfig`.

    Raises:
        ConfigError: if the recipe is unknown or has no settings for the model, or a field is
            unknown or its value does not fit.
    """
    named = {"model": model, "data": data, "recipe": recipe, "config": config}
    given: dict[str, Any] = {} if config is None else read_config_file(config)
    given |= {name: value for name, value in named.items() if value is not None} | fields
    network, name = given.get("model", "ccnet"), given.get("recipe", "default")
    settings = find_recipe(network, name, given.get("data", "shapes")).fields
    for epochs, steps in IN_STEPS.items():
        if epochs in given and steps not in given:
            settings = settings | {steps: None}
    return TrainConfig.from_json({"model": network} | settings | given)


def find_recipe(model: str, recipe: str, data: str = "shapes") -> Recipe:
    """The recipe of a network.

    Args:
        model: network name.
        recipe: one of `RECIPES`.
        data: data set name, which the default recipe depends on.

    Raises:
        ConfigError: if the recipe is unknown or has no settings for the model.
    """
    if recipe not in RECIPES:
        raise ConfigError(f"--recipe {recipe!r} is unknown{did_you_mean(recipe, RECIPES)}")
    if recipe == "default":
        return default_recipe(architecture_of(get_config(model)), data)
    recipes = NAMED[recipe]
    if model not in recipes:
        get_config(model)  # names the close ones if there is no such network
        others = [name for name in RECIPES if model in NAMED.get(name, ())]
        raise ConfigError(
            f"--recipe {recipe} has no settings for --model {model}, only for "
            f"{', '.join(recipes)}; {model} has {' and '.join(['default', *others])}"
        )
    return recipes[model]
