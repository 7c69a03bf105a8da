"""The settings of a training run as flags, by groups: a help text of a hundred flags needs them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tyro

from flaxseg.training.config import GROUPS, TrainConfig


def _name(group: type) -> str:
    """`OptimizerSettings` -> optimizer, as the help text calls the group."""
    return group.__name__.removesuffix("Settings").lower()


_Groups = dataclasses.make_dataclass(
    "_Groups", [(_name(group), tyro.conf.OmitArgPrefixes[group]) for group in GROUPS]
)
"""What `TrainConfig` inherits, side by side: the command line shows each dataclass as a group."""


def parse_flags(parse: Callable[..., Any], default: TrainConfig) -> TrainConfig:
    """Reads the settings from a command line; they are not validated.

    Args:
        parse: `tyro.cli` or what stands for it, called with a dataclass and the keyword `default`.
        default: settings that are not on the command line.
    """
    groups = {_name(group): group(**_fields(default, group)) for group in GROUPS}
    given = parse(_Groups, default=_Groups(**groups))
    parts = [_fields(getattr(given, _name(group)), group) for group in GROUPS]
    return TrainConfig(**{name: value for part in parts for name, value in part.items()})


def _fields(settings: Any, group: type) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(group)}
