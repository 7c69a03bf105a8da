"""The settings of a training run as flags, by groups: a help text of a hundred flags needs them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tyro

from flaxseg.training.config import GROUPS, TrainConfig


def _name(group: type) -> str:
    """`OptimizerSettings` -> optimizer, as the help text calls the group."""
    return group.__name__.removesuffix("Settings").lower()


def parse_flags(
    parse: Callable[..., Any], default: TrainConfig, more: Any = None
) -> tuple[TrainConfig, Any]:
    """Reads the settings from a command line; they are not validated.

    What `TrainConfig` inherits stands side by side: the command line shows each dataclass as a
    group.

    Args:
        parse: `tyro.cli` or what stands for it, called with a dataclass and the keyword `default`.
        default: settings that are not on the command line.
        more: a dataclass of further flags with what they are by default, which are a group, too.

    Returns:
        The settings, and the further ones.
    """
    groups = {_name(group): group(**_fields(default, group)) for group in GROUPS}
    groups = ({} if more is None else {_name(type(more)): more}) | groups
    kinds = [(name, tyro.conf.OmitArgPrefixes[type(group)]) for name, group in groups.items()]
    kind = dataclasses.make_dataclass("_Groups", kinds)
    given = parse(kind, default=kind(**groups))
    parts = [_fields(getattr(given, _name(group)), group) for group in GROUPS]
    config = TrainConfig(**{name: value for part in parts for name, value in part.items()})
    return config, more and getattr(given, _name(type(more)))


def _fields(settings: Any, group: type) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(group)}
