"""Batch and layer normalisation with torch's arithmetic and parameter names."""

import jax
from flax import nnx
from jax import lax
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg.errors import FlaxsegError


class BatchNorm(nnx.Module):
    """Normalises every channel of (B, H, W, C) over B, H and W.

    Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167, as torch computes it: the batch is
    normalised with its biased variance, `running_var` takes the unbiased one, and `momentum` is
    the weight of the new value. Under `jax.jit` over a mesh the batch is the global one.
    """

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        self.eps = eps
        self.momentum = momentum
        self.dtype = dtype
        self.use_running_average = False
        self.weight = nnx.Param(jnp.ones((channels,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((channels,), param_dtype))
        self.running_mean = nnx.BatchStat(jnp.zeros((channels,), param_dtype))
        self.running_var = nnx.BatchStat(jnp.ones((channels,), param_dtype))

    def set_view(self, use_running_average: bool | None = None):
        """Lets `nnx.view` switch between batch statistics and running ones."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x, (B, H, W, C); statistics are float32 or wider, the result is in `dtype`.

        Raises:
            FlaxsegError: training on a single value per channel, whose variance does not exist.
        """
        x = x.astype(jnp.result_type(x.dtype, self.dtype, jnp.float32))
        if self.use_running_average:
            mean, var = self.running_mean[...], self.running_var[...]
        else:
            mean, var = self._batch_statistics(x)
        scale = self.weight[...] * lax.rsqrt(var + self.eps)
        return ((x - mean) * scale + self.bias[...]).astype(self.dtype)

    def _batch_statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        count = x.size // x.shape[-1]
        if count < 2:
            raise FlaxsegError(
                f"BatchNorm needs at least 2 values per channel to train, got input {x.shape}: "
                "use a larger batch or image"
            )
        mean = x.mean((0, 1, 2))
        # Two passes: E[x^2] - E[x]^2 cancels, and made gradients ten times less accurate.
        var = jnp.square(x - mean).mean((0, 1, 2))
        self._update(self.running_mean, mean)
        self._update(self.running_var, var * (count / (count - 1)))
        return mean, var

    def _update(self, running: nnx.BatchStat, value: jax.Array):
        value = lax.stop_gradient(value).astype(running.dtype)
        # `running[...] = ...` would ask a traced array for its sharding, which looks through all
        # that was traced before: seconds for a deep network.
        running.set_value((1 - self.momentum) * running[...] + self.momentum * value)


class LayerNorm(nnx.Module):
    """Normalises the last axis of (..., C) with the biased variance.

    Ba et al. 2016, https://arxiv.org/abs/1607.06450. `eps` has no default: it differs between
    published networks and inside one network.
    """

    def __init__(
        self,
        channels: int,
        *,
        eps: float,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        self.eps = eps
        self.dtype = dtype
        self.weight = nnx.Param(jnp.ones((channels,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((channels,), param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x, (..., C); statistics are float32 or wider, the result is in `dtype`."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centered = x - x.mean(-1, keepdims=True)
        var = jnp.square(centered).mean(-1, keepdims=True)
        y = centered * lax.rsqrt(var + self.eps) * self.weight[...] + self.bias[...]
        return y.astype(self.dtype)
