"""Batch and layer normalisation with torch's arithmetic and parameter names."""

import functools

import jax
from flax import nnx
from jax import lax
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg.errors import FlaxsegError
from flaxseg.ops.recompute import late
from flaxseg.ops.stored import stored

SMALL = 4096
"""Values of a map below which XLA:CPU adds those of a channel one after the other."""

WIDE = 256
"""Channels from which on a CPU gains by keeping a gradient that is read across."""


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
        weight, bias = self.weight[...], self.bias[...]
        if self.use_running_average:
            scale = weight * lax.rsqrt(self.running_var[...] + self.eps)
            y = (_wide(x, self.dtype) - self.running_mean[...]) * scale + bias
            return y.astype(self.dtype)
        count = x.size // x.shape[-1]
        if count < 2:
            raise FlaxsegError(
                f"BatchNorm needs at least 2 values per channel to train, got input {x.shape}: "
                "use a larger batch or image"
            )
        y, mean, var = _normalised(self.eps, self.dtype, x, weight, bias)
        self._update(self.running_mean, mean)
        self._update(self.running_var, var * (count / (count - 1)))
        return y

    def _update(self, running: nnx.BatchStat, value: jax.Array):
        value = lax.stop_gradient(value).astype(running.dtype)
        # `running[...] = ...` would ask a traced array for its sharding, which looks through all
        # that was traced before: seconds for a deep network.
        running.set_value((1 - self.momentum) * running[...] + self.momentum * value)


def _wide(x: jax.Array, dtype: DTypeLike) -> jax.Array:
    return x.astype(jnp.result_type(x.dtype, dtype, jnp.float32))


Normalised = tuple[jax.Array, jax.Array, jax.Array]


def _normalise(
    eps: float, dtype: DTypeLike, x: jax.Array, weight: jax.Array, bias: jax.Array
) -> Normalised:
    """x normalised over its batch, in `dtype`, and its mean and biased variance, (C,).

    The gradient is written out below: left to JAX, it goes through the statistics and visits the
    map twice as often, for sums that are 0 or were made before. Mean and variance have none.
    """
    return _forward(eps, dtype, x, weight, bias)[0]


def _forward(
    eps: float, dtype: DTypeLike, x: jax.Array, weight: jax.Array, bias: jax.Array
) -> tuple[Normalised, tuple[jax.Array, ...]]:
    wide = _wide(x, dtype)
    count = x.size // x.shape[-1]
    mean = _over_batch(wide) / count
    # Two passes: E[x^2] - E[x]^2 cancels, and made gradients ten times less accurate.
    var = _over_batch(jnp.square(wide - mean)) / count
    inverse = lax.rsqrt(var + eps)
    y = (wide - mean) * (weight * inverse) + bias
    return (y.astype(dtype), mean, var), (x, weight, bias, mean, inverse)


def _backward(
    eps: float, dtype: DTypeLike, saved: tuple[jax.Array, ...], cotangents: Normalised
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of x, weight and bias: Ioffe and Szegedy 2015, section 3, with the sums taken together."""
    del eps
    x, weight, bias, mean, inverse = saved
    if x.shape[-1] < WIDE:
        # XLA:CPU would normalise the map a second time on the way forward, for this, and keep it.
        # A branch, as it stands below for wide maps, would have a copy of what `late` gives.
        x = late(cotangents[0], x)
    cotangent = _wide(cotangents[0], dtype)
    normal = (_wide(x, dtype) - mean) * inverse
    of_bias, of_weight = _over_batch(cotangent), _over_batch(cotangent * normal)
    # Both gradients of a convolution read it, that of the weight across: XLA:CPU would compute it
    # for each of them.
    given = x, weight, mean, inverse, cotangents[0], of_weight, of_bias
    on_cpu = stored(_of_map) if x.shape[-1] >= WIDE else _of_map
    of_x = lax.platform_dependent(*given, cpu=on_cpu, default=_of_map)
    return of_x, of_weight.astype(weight.dtype), of_bias.astype(bias.dtype)


def _over_batch(x: jax.Array) -> jax.Array:
    """The sums of x, (B, H, W, C), in each channel.

    Of a small map every row is summed by itself first, which rounds a sixth as much. The rows' sums
    are doubled, and the whole is halved, since XLA would make one sum of a sum of sums.
    """
    if x.size >= SMALL:
        return x.sum((0, 1, 2))
    return (2 * x.sum(2)).sum((0, 1)) / 2


# Traced once for each shape: `stored` asks for the shape of what it gives, and platforms share it.
@functools.partial(jax.jit, inline=True)
def _of_map(
    x: jax.Array,
    weight: jax.Array,
    mean: jax.Array,
    inverse: jax.Array,
    cotangent: jax.Array,
    of_weight: jax.Array,
    of_bias: jax.Array,
) -> jax.Array:
    """The gradient of the map that was normalised."""
    count = x.size // x.shape[-1]
    normal = (x.astype(mean.dtype) - mean) * inverse
    spread = (of_bias + normal * of_weight) / count
    return (weight * inverse * (cotangent.astype(mean.dtype) - spread)).astype(x.dtype)


_normalised = jax.custom_vjp(_normalise, nondiff_argnums=(0, 1))
_normalised.defvjp(_forward, _backward)


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
        return _layer_normalised(self.eps, self.dtype, x, self.weight[...], self.bias[...])


def _layer_normalise(
    eps: float, dtype: DTypeLike, x: jax.Array, weight: jax.Array, bias: jax.Array
) -> jax.Array:
    """x, (..., C), normalised over its last axis, in `dtype`.

    The gradient is written out below, and ends with one array that all parts are in. JAX's own ends
    with the mean's part, an array that is the same along the last axis, added to the rest: XLA:CPU
    takes such a sum for free, computes it anew wherever it is read, and with it the sums of all
    blocks that lie behind on a residual path.
    """
    return _layer_forward(eps, dtype, x, weight, bias)[0]


def _layer_forward(
    eps: float, dtype: DTypeLike, x: jax.Array, weight: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    wide = _wide(x, dtype)
    mean = wide.mean(-1, keepdims=True)
    centered = wide - mean
    inverse = lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + eps)
    y = centered * inverse * weight + bias
    return y.astype(dtype), (x, weight, bias, mean, inverse)


def _layer_backward(
    eps: float, dtype: DTypeLike, saved: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of x, weight and bias."""
    del eps
    x, weight, bias, mean, inverse = saved
    cotangent = _wide(cotangent, dtype)
    normal = (_wide(x, dtype) - mean) * inverse
    tokens = tuple(range(x.ndim - 1))
    of_bias = cotangent.sum(tokens)
    of_weight = (cotangent * normal).sum(tokens)
    scaled = cotangent * weight
    along = (scaled * normal).mean(-1, keepdims=True)
    of_x = inverse * (scaled - scaled.mean(-1, keepdims=True) - normal * along)
    return of_x.astype(x.dtype), of_weight.astype(weight.dtype), of_bias.astype(bias.dtype)


_layer_normalised = jax.custom_vjp(_layer_normalise, nondiff_argnums=(0, 1))
_layer_normalised.defvjp(_layer_forward, _layer_backward)
