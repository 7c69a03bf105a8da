"""Stateless dropout: the random key comes with the call, so a step is a function of its number.

The layers hold no random state. They do nothing in an eval view or at rate 0.
"""

import jax
from flax import nnx
from jax import numpy as jnp

from flaxseg.errors import FlaxsegError


def keep_mask(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """True with probability 1 - rate."""
    return jax.random.bernoulli(key, 1 - rate, shape)


class Dropout(nnx.Module):
    """Zeroes single values and scales the others by 1 / (1 - rate)."""

    def __init__(self, rate: float):
        self.rate = rate
        self.deterministic = False

    def set_view(self, deterministic: bool | None = None):
        """Lets `nnx.view` switch dropout off and on."""
        if deterministic is not None:
            self.deterministic = deterministic

    @property
    def active(self) -> bool:
        """Whether a call draws a mask."""
        return not self.deterministic and self.rate > 0

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Drops parts of x, (B, ..., C), with a key of the "dropout" stream.

        Raises:
            FlaxsegError: training at a rate above 0 without `rngs`.
        """
        if not self.active:
            return x
        if rngs is None:
            raise FlaxsegError(
                f"{type(self).__name__}(rate={self.rate}) in train mode needs random keys: call "
                "model(..., rngs=nnx.Rngs(dropout=key)), or use eval_view(model)"
            )
        keep = keep_mask(rngs.dropout(), self.rate, self.mask_shape(x.shape))
        return jnp.where(keep, x / (1 - self.rate), 0)

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What is dropped together shares one entry of the mask."""
        return shape


class Dropout2d(Dropout):
    """Zeroes whole channels of a sample (https://arxiv.org/abs/1411.4280)."""

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """One entry for each sample and channel."""
        return (shape[0], *[1] * (len(shape) - 2), shape[-1])


class DropPath(Dropout):
    """Zeroes whole samples of a residual branch (https://arxiv.org/abs/1603.09382)."""

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """One entry for each sample."""
        return (shape[0], *[1] * (len(shape) - 1))
