"""Random keys for drawing a network's weights inside a traced function."""

import itertools
import math
import typing
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jax import numpy as jnp

from flaxseg.ops.initializers import Draw, Key

MAX_ROUNDED = 2**18
"""Numbers in a draw beyond which to draw more than are wanted would take time and memory."""


class CountedKeys:
    """Gives the keys of `nnx.Rngs(seed).params`, one after the other.

    `nnx.Rngs` counts in a JAX variable. While a function is traced, each change of a variable asks
    for a sharding, which looks through all that was traced before: for a network of a thousand
    tensors that alone took most of the time. A plain counter gives the same keys.
    """

    def __init__(self, seed: int):
        self._key = jax.random.key(seed)
        self.count = 0

    def params(self) -> jax.Array:
        """The next key."""
        key = jax.random.fold_in(self._key, self.count)
        self.count += 1
        return key


class NotedKeys:
    """Notes what the initialisers draw, and gives them zeros.

    Attributes:
        count: keys that were asked for.
        draws: which of them was asked for which draw.
    """

    def __init__(self):
        self.count = 0
        self.draws: list[tuple[int, Draw]] = []

    def params(self) -> Key:
        """The next key."""
        number = self.count
        self.count += 1

        def note(draw: Draw) -> jax.Array:
            self.draws.append((number, draw))
            return jnp.zeros(draw.shape, draw.dtype)

        return note


class DrawnKeys:
    """Gives keys whose numbers are drawn already: by one loop for all draws of about a size.

    With a draw of its own for each of its weights, a network's program took XLA up to half a
    minute to compile. A loop gives each key the numbers that it gives alone, to the bit.
    """

    def __init__(self, keys: jax.Array, draws: Sequence[tuple[int, Draw]]):
        loops: dict[Draw, list[tuple[int, Draw]]] = {}
        for number, draw in draws:
            loops.setdefault(_rounded_up(draw), []).append((number, draw))
        self._numbers = {}
        for loop, members in loops.items():
            own = keys[np.asarray([number for number, _ in members])]
            # The barrier keeps XLA from folding what an initialiser does into the draw.
            drawn = jax.lax.optimization_barrier(jax.lax.map(loop, own))
            for row, (number, draw) in zip(jnp.unstack(drawn), members, strict=True):
                self._numbers[number, draw] = row if row.shape == draw.shape else row[: draw.size]
        self._next = itertools.count()

    def params(self) -> Key:
        """The next key."""
        number = next(self._next)
        return lambda draw: self._numbers[number, draw]


def _rounded_up(draw: Draw) -> Draw:
    """The draw that a draw is the beginning of: itself if it is large, else 4^n numbers.

    JAX's default generator makes each number from the key and the number's place, so that a longer
    draw begins with a shorter one. Large tensors keep their shape: devices can share its axes.
    """
    if draw.size > MAX_ROUNDED:
        return draw
    return draw._replace(shape=(4 ** math.ceil(math.log(max(draw.size, 1), 4)),))


def as_rngs(keys: CountedKeys | NotedKeys | DrawnKeys) -> nnx.Rngs:
    """Keys as a network's constructor takes them: as a "params" stream and nothing else."""
    return typing.cast(nnx.Rngs, keys)


def params_keys(seed: int) -> nnx.Rngs:
    """The keys of a seed as a network's constructor takes them."""
    return as_rngs(CountedKeys(seed))
