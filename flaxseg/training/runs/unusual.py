"""In what a run differs from its recipe, and the command line that says so."""

import dataclasses
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

from flaxseg.errors import ConfigError
from flaxseg.training.config import TrainConfig, changed_fields, flag, show
from flaxseg.training.recipes import make_config

_NAMES = ("model", "data", "recipe", "workdir", "config")
"""What a run is called by; the file of settings is in the settings themselves."""

_OF_ONE_START = ("max_steps", "allow_changes", "coordinator", "num_processes", "process_id")


class Unusual(NamedTuple):
    """A setting that differs.

    Attributes:
        name: field of `TrainConfig`.
        here: value in the run.
        there: value in its recipe.
    """

    name: str
    here: Any
    there: Any


def unusual(config: TrainConfig) -> list[Unusual]:
    """The settings in which a run differs from its recipe, in the order of the settings.

    Of a recipe that this version does not know, from the defaults.
    """
    named = {name: getattr(config, name) for name in ("model", "data", "recipe")}
    try:
        recipe = make_config(**named)
    except ConfigError:
        recipe = TrainConfig()
    recipe = dataclasses.replace(recipe, **{name: getattr(config, name) for name in _NAMES})
    names = changed_fields(recipe, config)
    return [Unusual(name, getattr(config, name), getattr(recipe, name)) for name in names]


def command_line(config: TrainConfig, *more: str) -> str:
    """The shell's line that starts a run with these settings, or goes on with it.

    Args:
        config: the settings; what only one start is told, such as `--max-steps`, is left out.
        more: further words.
    """
    words = ["flaxseg", "train", "--model", config.model, "--data", config.data]
    words += ["--recipe", config.recipe] * (config.recipe != "default")
    for name, value, _ in unusual(config):
        if name not in _OF_ONE_START:
            words += _words(name, value)
    return shlex.join([*words, "--workdir", str(config.directory), *more])


def _words(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        yield flag(name) if value else flag(f"no_{name}")
        return
    yield flag(name)
    yield from map(show, value) if isinstance(value, tuple) else [show(value)]
