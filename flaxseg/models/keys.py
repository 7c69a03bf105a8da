"""Random keys for drawing a network's weights inside a traced function."""

import typing

import jax
from flax import nnx


class _Keys:
    """Gives the keys of `nnx.Rngs(seed).params`, one after the other.

    `nnx.Rngs` counts in a JAX variable. While a function is traced, each change of a variable asks
    for a sharding, which looks through all that was traced before: for a network of a thousand
    tensors that alone took most of the time. A plain counter gives the same keys.
    """

    def __init__(self, seed: int):
        self._key = jax.random.key(seed)
        self._count = 0

    def params(self) -> jax.Array:
        """The next key."""
        key = jax.random.fold_in(self._key, self._count)
        self._count += 1
        return key


def params_keys(seed: int) -> nnx.Rngs:
    """What a network's constructor takes as `rngs`: its "params" stream and nothing else."""
    return typing.cast(nnx.Rngs, _Keys(seed))
