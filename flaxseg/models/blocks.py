"""What every network shares: its output type, its train and eval views, conv with norm."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg import ops
from flaxseg.errors import ConfigError
from flaxseg.ops import initializers as init

M = TypeVar("M", bound=nnx.Module)


def require(fits: bool, field: str, value: Any, expected: str):
    """Raises a `ConfigError` that names a configuration field, unless its value fits."""
    if not fits:
        raise ConfigError(f"field {field!r} is {value!r}, expected {expected}")


class Output(NamedTuple):
    """What a network returns.

    Attributes:
        logits: (B, H, W, K), float32 or wider.
        aux: logits of the auxiliary heads in published order; empty unless asked for.
    """

    logits: jax.Array
    aux: tuple[jax.Array, ...] = ()


def eval_view(model: M) -> M:
    """A view on the same variables with running statistics and without dropout."""
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)


def train_view(model: M) -> M:
    """A view on the same variables with batch statistics and dropout."""
    return nnx.view(model, deterministic=False, use_running_average=False, raise_if_not_found=False)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "none": lambda x: x,
    "relu": jax.nn.relu,
}


class ConvBN(nnx.Module):
    """Convolution without bias, batch normalisation, activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        activation: str = "relu",
        weight_init: init.Initializer = init.kaiming_normal_fan_out,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.conv = ops.Conv(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            bias=False,
            weight_init=weight_init,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.bn = ops.BatchNorm(out_channels, dtype=dtype, param_dtype=param_dtype)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, in), to (B, H', W', out)."""
        return ACTIVATIONS[self.activation](self.bn(self.conv(x)))
