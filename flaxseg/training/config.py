"""The settings of a training run: one typed dataclass, every field a flag."""

import ast
import dataclasses
import json
import os
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

from flaxseg.errors import ConfigError, did_you_mean
from flaxseg.inference.more_metrics import parse_metrics
from flaxseg.training.freezing import check_patterns
from flaxseg.training.settings.averaging import AveragingSettings
from flaxseg.training.settings.data import DataSettings
from flaxseg.training.settings.devices import DeviceSettings
from flaxseg.training.settings.evaluation import EvaluationSettings
from flaxseg.training.settings.limits import Limit
from flaxseg.training.settings.logging import LoggingSettings
from flaxseg.training.settings.loss import LossSettings, check_loss
from flaxseg.training.settings.optimizer import OptimizerSettings
from flaxseg.training.settings.run import RunSettings
from flaxseg.training.settings.schedule import ScheduleSettings
from flaxseg.training.settings.usual import UsualSettings

HUB = "hf:"
"""In front of what `--init` names on the Hugging Face hub, which is no path."""

GROUPS = (
    UsualSettings,
    RunSettings,
    DataSettings,
    LossSettings,
    OptimizerSettings,
    ScheduleSettings,
    AveragingSettings,
    EvaluationSettings,
    LoggingSettings,
    DeviceSettings,
)
"""The groups of settings, in the order of the help text."""


@dataclasses.dataclass(frozen=True)
class TrainConfig(
    DeviceSettings,
    LoggingSettings,
    EvaluationSettings,
    AveragingSettings,
    ScheduleSettings,
    OptimizerSettings,
    LossSettings,
    DataSettings,
    RunSettings,
    UsualSettings,
):
    """Settings of one training run; `recipes.make_config` fills them for a model and data set."""

    LIMITS: ClassVar[dict[str, Limit]] = {k: v for group in GROUPS for k, v in group.LIMITS.items()}
    FREE: ClassVar[frozenset[str]] = frozenset().union(*(group.FREE for group in GROUPS))
    SCORED: ClassVar[frozenset[str]] = frozenset().union(
        *(getattr(group, "SCORED", ()) for group in GROUPS)
    )
    FIXED: ClassVar[dict[str, Callable[[Any], Any]]] = {
        k: v for group in GROUPS for k, v in getattr(group, "FIXED", {}).items()
    }

    @property
    def directory(self) -> Path:
        """The work directory, with its default filled in."""
        recipe = "" if self.recipe in ("default", self.data) else f"-{self.recipe}"
        return Path(self.workdir or f"runs/{self.model}-{self.data}{recipe}")

    @property
    def images_per_step(self) -> int:
        """The batch size, once it is a number.

        Raises:
            ConfigError: nobody has chosen it yet.
        """
        if self.batch_size == "auto":
            raise ConfigError(
                "--batch-size auto is chosen by flaxseg train, for the devices it runs on: give a "
                "number here"
            )
        return self.batch_size

    def validate(self) -> "TrainConfig":
        """Returns the config if every value fits its field.

        Raises:
            ConfigError: naming the flag, its value and what fits.
        """
        hints = typing.get_type_hints(TrainConfig)
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), hints[field.name])
        for name, (fits, words) in self.LIMITS.items():
            value = getattr(self, name)
            if value is not None and not fits(value):
                raise ConfigError(f"{flag(name)} is {show(value)}, it must be {words}")
        parse_overrides(self.override)
        check_loss(self)
        check_patterns(self.freeze)
        parse_metrics(self.metrics)
        return self

    def to_json(self) -> dict[str, Any]:
        """The config as plain JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainConfig":
        """Rebuilds and validates what `to_json` gave; absent fields take their defaults.

        Raises:
            ConfigError: for an unknown field, with the close ones, or a value that does not fit.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in names:
                raise ConfigError(f"unknown training setting {key!r}{did_you_mean(key, names)}")
        tuples: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**tuples).validate()

    @classmethod
    def load(cls, path: Path) -> "TrainConfig":
        """Reads the JSON file of a work directory.

        Raises:
            ConfigError: if the file is unreadable, with its path.
        """
        try:
            return cls.from_json(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: no readable training config: {error}") from error


def flag(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")


def show(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, (tuple, list)):
        return " ".join(show(item) for item in value) or "empty"
    return str(value)


def changed_fields(there: TrainConfig, here: TrainConfig) -> list[str]:
    """The fields in which two configs differ, in the order of the settings."""
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    return [name for name in names if getattr(there, name) != getattr(here, name)]


def differences(there: TrainConfig, here: TrainConfig) -> dict[str, str]:
    """What makes two configs different runs: field -> 'flag was value there, now value here'."""
    return {
        name: f"{flag(name)} was {show(getattr(there, name))}, now {show(getattr(here, name))}"
        for name in changed_fields(there, here)
        if name not in TrainConfig.FREE
    }


def is_fixed(name: str, there: TrainConfig, here: TrainConfig) -> bool:
    """Whether a field differs in what no checkpoint outlives."""
    if name in ("batch_size", "limit") and here.swa_start is not None:
        return True  # a mean of snapshots counts them by the steps of an epoch
    part = TrainConfig.FIXED.get(name)
    return part is not None and part(getattr(there, name)) != part(getattr(here, name))


def resolved(config: TrainConfig) -> TrainConfig:
    """The config with its default work directory filled in, and the paths it reads absolute.

    What a work directory records thus holds wherever the next command is called.
    """
    paths = {name: _absolute(getattr(config, name)) for name in _READ}
    return dataclasses.replace(config, workdir=os.path.expanduser(config.directory), **paths)


_READ = ("data_dir", "init", "config", "cache_dir")


def _absolute(path: str | None) -> str | None:
    if path is None or path.startswith(HUB):
        return path
    return os.path.abspath(os.path.expanduser(path))


def parse_overrides(overrides: typing.Iterable[str]) -> dict[str, Any]:
    """Reads KEY=VALUE texts; a value is a Python literal (1, 0.5, 1,1,1,1, True) or else a word.

    Raises:
        ConfigError: for a text without "=", and for the class count, which the data set decides.
    """
    result = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise ConfigError(f"--override takes KEY=VALUE, such as channels=64, got {text!r}")
        if key == "num_classes":
            raise ConfigError("--override num_classes: the data set decides it, leave it out")
        result[key] = _literal(value)
    return result


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _check_type(name: str, value: Any, hint: Any) -> None:
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            close = did_you_mean(str(value), choices)
            raise ConfigError(f"{flag(name)} is {value!r}, it must be one of {choices}{close}")
    elif not _is_a(value, hint):
        raise ConfigError(f"{flag(name)} is {value!r}, it must be of type {_type_words(hint)}")


def _type_words(hint: Any) -> str:
    """A hint as it is written in the source."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(map(repr, args))
    if origin in (types.UnionType, typing.Union):
        return " | ".join(map(_type_words, args))
    if hint is types.NoneType:
        return "None"
    return hint.__name__ if isinstance(hint, type) and not args else str(hint)


def _is_a(value: Any, hint: Any) -> bool:
    """isinstance for the hints that TrainConfig uses."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in args
    if origin in (types.UnionType, typing.Union):
        return any(_is_a(value, option) for option in args)
    if origin is tuple:
        items = (args[0],) * len(value) if args[-1] is ... and isinstance(value, tuple) else args
        return (
            isinstance(value, tuple) and len(value) == len(items) and all(map(_is_a, value, items))
        )
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
