"""Classes that are left and right of something: what a left-right flip makes of them."""

import re
import shlex
from collections.abc import Sequence

import numpy as np

from flaxseg.errors import ConfigError, did_you_mean

Pair = tuple[int, int]
"""Ids of two classes, each of which is the other's mirror image."""

_SIDES = {"left": "l", "l": "l", "right": "r", "r": "r"}
_OTHER = {"l": "r", "r": "l"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W_A-Za-z]+")
"""A part of a name between separators, or of one in camel case."""


def parse_pairs(texts: Sequence[str], classes: Sequence[str]) -> tuple[Pair, ...]:
    """Reads NAME=NAME texts.

    Args:
        texts: such as "left_arm=right_arm"; names may hold "=", too.
        classes: the known names, by id.

    Raises:
        ConfigError: a text that does not name two classes, or a class that is named twice.
    """
    pairs: list[Pair] = []
    for text in texts:
        parts = text.split("=")
        cuts = [("=".join(parts[:i]), "=".join(parts[i:])) for i in range(1, len(parts))]
        if not cuts:
            raise ConfigError(f"--flip-pairs {text}: give two classes as LEFT=RIGHT")
        known = [cut for cut in cuts if all(name in classes for name in cut)]
        if not known:
            name = next(name for name in cuts[0] if name not in classes)
            raise ConfigError(
                f"--flip-pairs {text}: no class is called {name!r}{did_you_mean(name, classes)}"
            )
        left, right = known[0]
        pair = classes.index(left), classes.index(right)
        twice = {index for before in pairs for index in before} & {*pair}
        if twice or left == right:
            name = classes[min(twice or pair)]
            raise ConfigError(
                f"--flip-pairs {text}: {name!r} is named twice, but has one mirror image"
            )
        pairs.append(pair)
    return tuple(pairs)


def mirror_table(pairs: Sequence[Pair]) -> np.ndarray:
    """What every label becomes in the mirror, (256,) uint8."""
    table = np.arange(256, dtype=np.uint8)
    for left, right in pairs:
        table[left], table[right] = right, left
    return table


def look_mirrored(classes: Sequence[str]) -> list[Pair]:
    """The classes whose names differ in left and right alone, left first.

    Such as left_arm and right_arm, LeftArm and RightArm, "Shoe L" and "Shoe R", in any case; a
    name that is no more than one letter tells nothing.
    """
    known: dict[tuple, int] = {}
    for index, name in enumerate(classes):
        key = _key(name)
        if key is not None:
            known.setdefault(key, index)
    pairs = []
    for (words, sides), index in known.items():
        other = known.get((words, tuple(_OTHER[side] for side in sides)))
        if other is not None and sides[0] == "l":
            pairs.append((index, other))
    return sorted(pairs)


def hint(classes: Sequence[str], given: Sequence[Pair]) -> str | None:
    """A line about classes that look like mirror images and are not among the given pairs."""
    paired = {index for pair in given for index in pair}
    missing = [pair for pair in look_mirrored(classes) if not paired & set(pair)]
    if not missing:
        return None
    names = ", ".join(f"{classes[left]} and {classes[right]}" for left, right in missing)
    flags = " ".join(
        shlex.quote(f"{classes[left]}={classes[right]}") for left, right in (*given, *missing)
    )
    return f"classes {names} look like mirror images: --flip-pairs {flags}, or --hflip 0"


def _key(name: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The words of a name with its sides left blank, and the sides; None if it has no side."""
    words = [word.lower() for word in _WORD.findall(name)]
    sides = tuple(_SIDES[word] for word in words if word in _SIDES)
    if not sides or (len(words) == 1 and len(words[0]) == 1):
        return None
    return tuple("" if word in _SIDES else word for word in words), sides
