"""Pictures in the corner of a canvas: one program for many sizes, with the results of each alone.

A compiled program has one size of images. A smaller picture can lie in the upper left corner of
that canvas, but a network would see what lies around it: a convolution sees zeros beyond the
border of a map and would see biases there, attention would see more pixels, a mean would be of
them, and an interpolation would stretch from edge to edge of the canvas. So while a network is
traced inside `on_canvas`, every layer that mixes pixels asks here how far the picture reaches in
its map. Layers of single pixels need not know; what they leave outside of the picture is any
finite number.

How far a picture reaches in a map follows from the layers before, by the rule that gives the map's
own side. The rules are kept as tables, one for each side of a map: two maps of one side whose
pictures reach differently far are found when the network is traced.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax import numpy as jnp

from flaxseg.errors import ConfigError

Rule = Callable[..., int | np.ndarray]
"""From the side of a map, or an array of sides, to that of the map that a layer makes of it."""


class _Side:
    """How far pictures reach along one axis of the maps."""

    def __init__(self, length: int, reach: jax.Array):
        self._reach = reach
        self._tables: dict[int, np.ndarray] = {length: np.arange(length + 1)}

    def of(self, length: int) -> jax.Array:
        """The reach in maps of this length, (B,)."""
        return jnp.asarray(self._tables[length])[self._reach]

    def follow(self, length: int, rule: Rule) -> None:
        """Notes that a layer turns maps of this length into others."""
        table = np.maximum(rule(self._tables[length]), 0)
        known = self._tables.setdefault(int(rule(length)), table)
        if (known[1:] != table[1:]).any():
            raise ConfigError(
                f"a network in which pictures reach differently far in maps of {rule(length)} "
                "pixels cannot run on a canvas: give every size a program of its own"
            )


_sides: contextvars.ContextVar[tuple[_Side, _Side] | None] = contextvars.ContextVar(
    "sides", default=None
)


@contextlib.contextmanager
def on_canvas(size: tuple[int, int], reach: jax.Array) -> Iterator[None]:
    """Inside, a network is traced for pictures in the upper left corner of larger images.

    Args:
        size: height and width of the images.
        reach: height and width of the picture in each of them, (B, 2), integers from 1 on.
    """
    token = _sides.set((_Side(size[0], reach[:, 0]), _Side(size[1], reach[:, 1])))
    try:
        yield
    finally:
        _sides.reset(token)


def reaches(size: tuple[int, int]) -> tuple[jax.Array, jax.Array] | None:
    """How far pictures reach down and to the right in maps of this size, (B,) each.

    None where no canvas is: they fill the maps.
    """
    sides = _sides.get()
    return None if sides is None else (sides[0].of(size[0]), sides[1].of(size[1]))


def follow(size: tuple[int, ...], rule: Rule) -> None:
    """Notes that a layer turns maps of this height and width into others, by one rule for both."""
    sides = _sides.get()
    if sides is not None:
        for side, length in zip(sides, size, strict=True):
            side.follow(length, rule)


def inside(lengths: int, reach: jax.Array) -> jax.Array:
    """Which of so many pixels along an axis lie in the pictures, (B, lengths)."""
    return jnp.arange(lengths) < reach[:, None]


def shown(size: tuple[int, int], shrink: int = 1) -> jax.Array | None:
    """Which pixels of maps of this size lie in the pictures, (B, H, W); None: all.

    Args:
        size: height and width of the maps.
        shrink: the pixels are whole squares of so many on a side, (B, H // shrink, W // shrink).
    """
    found = reaches(size)
    if found is None:
        return None
    rows, cols = (inside(n // shrink, r // shrink) for n, r in zip(size, found, strict=True))
    return rows[:, :, None] & cols[:, None, :]


def blank(x: jax.Array, fill: float = 0) -> jax.Array:
    """x, (B, H, W, C), with `fill` outside of the pictures."""
    mask = shown((x.shape[1], x.shape[2]))
    return x if mask is None else jnp.where(mask[..., None], x, jnp.asarray(fill, x.dtype))
