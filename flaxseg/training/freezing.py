"""Weights that a training leaves as they are.

Like the rules of `flaxseg.training.optim.groups`, patterns are regular expressions over native
keys; they match whole parts of a key, so that `blocks.1` is not `blocks.10`.
"""

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx

from flaxseg import models, native
from flaxseg.errors import ConfigError

ENCODER = "encoder"
"""Names all that comes before neck and heads, which networks call by different names."""

_ENCODER = r"^(?!(neck|head|aux_heads?)\.)"
_SHOWN = 3


def check_patterns(patterns: Iterable[str]) -> None:
    """Makes sure that what `--freeze` names are regular expressions.

    Raises:
        ConfigError: naming the one that is not.
    """
    for pattern in patterns:
        _compiled(pattern)


def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern == ENCODER:
        return re.compile(_ENCODER)
    try:
        return re.compile(rf"(^|\.)(?:{pattern})(\.|$)")
    except re.error as error:
        raise ConfigError(
            f"--freeze {pattern} is no regular expression ({error.msg}): name parts of a network "
            r"such as encoder, backbone.stages.0, 'blocks\.[0-5]' or '.*bias'"
        ) from None


class Frozen(NamedTuple):
    """The weights that do not learn.

    Attributes:
        keys: their native keys.
    """

    keys: frozenset[str] = frozenset()

    @classmethod
    def of(cls, patterns: Sequence[str], model: nnx.Module) -> "Frozen":
        """The weights of a network, real or abstract, that patterns name.

        Raises:
            ConfigError: a pattern that names none, with the names near it; or nothing is left to
                train.
        """
        if not patterns:
            return cls()
        keys = list(weight_sizes(model))
        found = {pattern: [*filter(_compiled(pattern).search, keys)] for pattern in patterns}
        for pattern, named in found.items():
            if not named:
                raise ConfigError(f"--freeze {pattern} names no weight{_near(pattern, keys)}")
        frozen = frozenset(key for named in found.values() for key in named)
        if len(frozen) == len(keys):
            raise ConfigError(f"--freeze {' '.join(patterns)} leaves no weight to train")
        return cls(frozen)

    def split(self, params: nnx.State) -> tuple[nnx.State, nnx.State]:
        """Those of a tree of parameters that learn, and those that do not."""
        learning = nnx.filter_state(params, lambda path, _: _key(path) not in self.keys)
        return learning, nnx.filter_state(params, lambda path, _: _key(path) in self.keys)

    def view(self, model: models.Model) -> models.Model:
        """The network with the parts in eval mode of which no weight learns.

        Their norms use running statistics, which stay as they are, and their dropout is off. What
        has no weights itself, such as a dropout layer, goes with what it is part of.
        """
        if not self.keys:
            return model
        paths = {key: tuple(key.split(".")) for key in weight_sizes(model)}
        parts = {path[:n] for path in paths.values() for n in range(len(path))}
        learning = {p[:n] for k, p in paths.items() if k not in self.keys for n in range(len(p))}

        def is_still(path: tuple[Any, ...], _: Any) -> bool:
            names = tuple(map(str, path))
            while names not in parts:
                names = names[:-1]
            return names not in learning

        return models.eval_view(model, only=is_still)

    def told(self, params: nnx.State) -> list[str]:
        """What of a tree of parameters is frozen, for the user to read; nothing if nothing is."""
        if not self.keys:
            return []
        learning, still = (jax.tree.leaves(part) for part in self.split(params))
        count, rest = (sum(leaf.size for leaf in leaves) / 1e6 for leaves in (still, learning))
        return [
            f"frozen: {len(still)} of {len(still) + len(learning)} tensors, {count:.2f} of "
            f"{count + rest:.2f} M parameters; norms and dropout of parts that are frozen as a "
            "whole do as in evaluations, and their running statistics stay"
        ]

    def warn(self, given: Collection[str]) -> list[str]:
        """What is frozen at random numbers, for the user to read.

        Args:
            given: native keys of the weights that a run does not draw.
        """
        random = sorted(self.keys.difference(given))
        if not random:
            return []
        more = ", ..." * (len(random) > _SHOWN)
        return [
            f"{len(random)} tensors are frozen at random numbers, as --init gives them no value: "
            f"{', '.join(random[:_SHOWN])}{more}"
        ]


NOTHING = Frozen()
"""All weights learn."""


def weight_sizes(model: nnx.Module) -> dict[str, int]:
    """Native key -> number of parameters, without running statistics."""
    statistics = {_key(path) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.BatchStat))}
    shapes: Mapping[str, tuple[int, ...]] = native.leaves(model)
    return {key: math.prod(shape) for key, shape in shapes.items() if key not in statistics}


def _key(path: Iterable[Any]) -> str:
    return ".".join(map(str, path))


def _near(pattern: str, keys: Sequence[str]) -> str:
    """The end of a message: parts of the network that are spelled alike, or the largest ones."""
    parts: set[str] = set()
    for names in (key.split(".")[:-1] for key in keys):
        ends = range(1, len(names) + 1)
        parts.update(".".join(names[i:j]) for j in ends for i in range(j))
    near = difflib.get_close_matches(pattern, sorted(parts), n=_SHOWN, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; parts: {', '.join(dict.fromkeys(key.partition('.')[0] for key in keys))}"
