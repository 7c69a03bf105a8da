"""The settings of a training run: one typed dataclass, every field a flag."""

import ast
import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from flaxseg.errors import ConfigError, did_you_mean

WHERE_AND_HOW_FAST = frozenset(
    {"workdir", "data_dir", "devices", "check_labels", "checkpoint_every", "max_steps", "recipe"}
)
"""Fields that a resumed run may change: none of them changes what is learnt from which batch."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; `recipes.make_config` fills them for a model and data set."""

    model: str = "ccnet"
    """Network, a name of `flaxseg.models.list_models()`."""

    data: str = "shapes"
    """Data set: "shapes" is drawn on the fly and needs no files."""

    data_dir: str | None = None
    """Folder of the data set's files."""

    workdir: str | None = None
    """Folder of everything the run writes; the same folder again resumes. None: runs/MODEL-DATA,
    and -RECIPE unless that is the default."""

    recipe: str = "default"
    """Named set of defaults for all the other fields; flags override it."""

    init: str | None = None
    """Checkpoint to start from, in any layout that `python -m convert formats` lists: file, folder,
    hf:owner/name, or an encoder alone. None: random numbers."""

    limit: int | None = None
    """Use only the first LIMIT images of each split, for a quick try. None: all."""

    epochs: int = 10
    """Length of the run, in passes over the training images."""

    steps: int | None = None
    """Length of the run, in optimiser steps, instead of epochs."""

    batch_size: int = 8
    """Images per optimiser step, over all devices together."""

    image_size: tuple[int, int] = (64, 64)
    """Height and width of the training images, in pixels."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW with betas 0.9 and 0.999."""

    lr: float = 0.05
    """Peak learning rate."""

    momentum: float = 0.9
    """Momentum of SGD, 0 to below 1; AdamW has none."""

    weight_decay: float = 1e-4
    """Decay per unit of weight. SGD adds it to every gradient; AdamW shrinks matrices and kernels
    by it times the learning rate, and leaves norms, biases and position tables alone."""

    schedule: Literal["constant", "step", "poly"] = "poly"
    """Learning rate over time: constant, times GAMMA every STEP_SIZE epochs, or falling to 0 as
    (1 - progress) ** POWER."""

    warmup_epochs: float = 0.0
    """Epochs over which the learning rate rises linearly to the schedule's."""

    step_size: int = 50
    """Epochs between two drops of the "step" schedule."""

    gamma: float = 0.5
    """Factor of each drop of the "step" schedule."""

    power: float = 0.9
    """Exponent of the "poly" schedule."""

    resize: Literal["crop", "stretch"] = "crop"
    """How a picture becomes IMAGE_SIZE: a random crop, or the whole picture stretched."""

    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest random magnification before the crop; 1 1 switches it off."""

    hflip: float = 0.5
    """Probability of a left-right flip, 0 to 1."""

    vflip: float = 0.0
    """Probability of an upside-down flip, 0 to 1."""

    jitter: float = 0.0
    """Strength of the random changes of brightness, contrast and saturation; 0 switches them off,
    0.4 is common."""

    eval_size: tuple[int, int] | None = None
    """Height and width to which validation pictures are stretched, in pixels. None: their own."""

    eval_batch_size: int | None = None
    """Images per evaluation step. None: as many as per optimiser step."""

    eval_every: int = 1
    """Epochs between two evaluations; the last epoch is always evaluated."""

    log_every: int = 10
    """Optimiser steps between two rows of metrics.csv."""

    checkpoint_every: float = 5.0
    """Minutes between two checkpoints, besides the one after each epoch; 0 is after each step."""

    seed: int = 0
    """Seed of weights, order of the images, augmentation and dropout."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the computation; parameters, loss and statistics stay float32."""

    override: tuple[str, ...] = ()
    """Fields of the model's own config as KEY=VALUE, dotted where nested, such as
    backbone.width=16 channels=64."""

    devices: int | None = None
    """How many devices share the batch. None: all there are."""

    check_labels: bool = True
    """Read every label map before the first step."""

    max_steps: int | None = None
    """Stop after this optimiser step as if interrupted; the schedule does not change."""

    @property
    def directory(self) -> Path:
        """The work directory, with its default filled in."""
        recipe = "" if self.recipe == "default" else f"-{self.recipe}"
        return Path(self.workdir or f"runs/{self.model}-{self.data}{recipe}")

    def validate(self) -> "TrainConfig":
        """Returns the config if every value fits its field.

        Raises:
            ConfigError: naming the flag, its value and what fits.
        """
        for name, hint in typing.get_type_hints(TrainConfig).items():
            _check_type(name, getattr(self, name), hint)
        for name, (fits, words) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not fits(value):
                raise ConfigError(f"{flag(name)} is {show(value)}, it must be {words}")
        parse_overrides(self.override)
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


def differences(there: TrainConfig, here: TrainConfig) -> list[str]:
    """The fields that make two configs different runs, each as 'flag: value there, value here'."""
    pairs = [
        (field.name, getattr(there, field.name), getattr(here, field.name))
        for field in dataclasses.fields(TrainConfig)
        if field.name not in WHERE_AND_HOW_FAST
    ]
    return [
        f"{flag(name)} was {show(old)}, now {show(new)}" for name, old, new in pairs if old != new
    ]


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
        words = getattr(hint, "__name__", None) if isinstance(hint, type) else None
        raise ConfigError(f"{flag(name)} is {value!r}, it must be of type {words or hint}")


def _is_a(value: Any, hint: Any) -> bool:
    """isinstance for the hints that TrainConfig uses."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
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


_Limit = tuple[Callable[[Any], bool], str]


def _at_least(low: int) -> _Limit:
    return lambda value: low <= value < math.inf, f"at least {low}"


def _sizes(value: tuple[int, int]) -> bool:
    return min(value) >= 1


_POSITIVE: _Limit = (lambda value: 0 < value < math.inf, "above 0")
_PROBABILITY: _Limit = (lambda value: 0 <= value <= 1, "from 0 to 1")
_SIZE: _Limit = (_sizes, "at least 1 pixel high and wide")

_LIMITS: dict[str, _Limit] = {
    "limit": _at_least(1),
    "epochs": _at_least(1),
    "steps": _at_least(1),
    "batch_size": _at_least(1),
    "image_size": _SIZE,
    "lr": _POSITIVE,
    "momentum": (lambda value: 0 <= value < 1, "from 0 to below 1"),
    "weight_decay": _at_least(0),
    "warmup_epochs": _at_least(0),
    "step_size": _at_least(1),
    "gamma": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "power": _POSITIVE,
    "scale": (lambda value: 0 < value[0] <= value[1] < math.inf, "MIN MAX with 0 < MIN <= MAX"),
    "hflip": _PROBABILITY,
    "vflip": _PROBABILITY,
    "jitter": _PROBABILITY,
    "eval_size": _SIZE,
    "eval_batch_size": _at_least(1),
    "eval_every": _at_least(1),
    "log_every": _at_least(1),
    "checkpoint_every": _at_least(0),
    "seed": (lambda value: 0 <= value < 2**32, "from 0 to 4294967295"),
    "devices": _at_least(1),
    "max_steps": _at_least(1),
}
