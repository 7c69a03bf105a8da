"""Random keys for drawing a network's weights inside a traced function."""

import typing

import jax
from flax import nnx


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


class ListedKeys:
    """Gives keys that were drawn before, one after the other."""

    def __init__(self, keys: jax.Array):
        self._keys = iter(keys)

    def params(self) -> jax.Array:
        """The next key."""
        return next(self._keys)


def as_rngs(keys: CountedKeys | ListedKeys) -> nnx.Rngs:
    """Keys as a network's constructor takes them: as a "params" stream and nothing else."""
    return typing.cast(nnx.Rngs, keys)


def params_keys(seed: int) -> nnx.Rngs:
    """The keys of a seed as a network's constructor takes them."""
    return as_rngs(CountedKeys(seed))
