"""What every network shares: its output type, its train and eval views, conv with norm."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypeVar, get_args

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


class AnySize:
    """Which images a network takes: the base of every configuration, for one that takes any."""

    @property
    def network(self) -> Any:
        """The configuration of the network itself, where this one is of a program made of it."""
        return self

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """The only height and width it takes, in pixels; None: any."""
        return None

    @property
    def size_divisor(self) -> int:
        """Height and width must be multiples of this many pixels."""
        return 1

    @property
    def square(self) -> bool:
        """Height and width must be the same."""
        return False

    @property
    def one_program(self) -> bool:
        """Whether one program can take images of all its sizes: no number of pixels decides."""
        return self.fixed_size is None

    @property
    def takes_canvas(self) -> bool:
        """Whether pictures inside `ops.on_canvas` get the logits that each would get alone."""
        return False

    def enlargements(self, low: Any, image: Any) -> tuple[tuple[Any, bool], ...]:
        """The interpolations between logits at the heads' resolution and those of the pixels.

        Of networks that take a canvas, for one axis.

        Args:
            low: side of the logits, a number or an array.
            image: side of the images, likewise.

        Returns:
            The side and `align_corners` of one bilinear interpolation after the other.
        """
        del low, image
        return ()

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises a `ConfigError` unless the network takes images of this height and width."""
        fixed, divisor = self.fixed_size, self.size_divisor
        if fixed is not None and size != fixed:
            raise ConfigError(
                f"images of {size[0]}x{size[1]} pixels do not fit the network, whose position "
                f"table is for {fixed[0]}x{fixed[1]}: resize them, or build the network from "
                f"config.with_image_size({size})"
            )
        if size[0] % divisor or size[1] % divisor:
            raise ConfigError(
                f"images of {size[0]}x{size[1]} pixels do not fit the network: both sides must be "
                f"multiples of {divisor}"
            )
        if self.square and size[0] != size[1]:
            raise ConfigError(
                f"images of {size[0]}x{size[1]} pixels do not fit the network, which takes "
                "square images; crop or resize them"
            )

    def with_image_size(self, size: tuple[int, int]) -> Self:
        """The configuration for training on images of this height and width in pixels."""
        del size
        return self


class Output(NamedTuple):
    """What a network returns.

    Attributes:
        logits: (B, H, W, K), float32 or wider.
        aux: logits of the auxiliary heads in published order; empty unless asked for.
    """

    logits: jax.Array
    aux: tuple[jax.Array, ...] = ()


class Network(nnx.Module):
    """A whole network, from images to logits, with its own precision of float32 products.

    Attributes:
        matmul_precision: "highest" multiplies float32 as such; see `flaxseg.ops.precision`. JAX's
            own setting changes nothing for a network, and all for an encoder called by itself.
    """

    matmul_precision: ops.Precision = "highest"

    def logits_align_corners(self, size: tuple[int, int]) -> bool | None:
        """How logits that were left at the heads' resolution become those of the pixels.

        `align_corners` of one bilinear interpolation; None where that would not give the logits.

        Args:
            size: height and width of the images in pixels.
        """
        del size
        return None

    def set_view(self, matmul_precision: ops.Precision | None = None):
        """Lets `nnx.view` choose the precision."""
        if matmul_precision is not None:
            self.matmul_precision = matmul_precision


def with_precision(model: M, matmul_precision: ops.Precision) -> M:
    """A view on the same variables that multiplies float32 in this precision.

    Raises:
        ConfigError: JAX has no precision of that name.
    """
    known = get_args(ops.Precision)
    if matmul_precision not in known:
        raise ConfigError(f"matmul_precision is {matmul_precision!r}, expected one of {known}")
    return nnx.view(model, matmul_precision=matmul_precision)


def eval_view(model: M, only: Callable[[tuple[Any, ...], Any], bool] | None = None) -> M:
    """A view on the same variables with running statistics and without dropout.

    Args:
        model: a network.
        only: tells of a module, by its path in the network, whether it is meant; None: all are.
    """
    mode = {"deterministic": True, "use_running_average": True}
    return nnx.view(model, only=only or ..., raise_if_not_found=False, **mode)


def train_view(model: M) -> M:
    """A view on the same variables with batch statistics and dropout."""
    return nnx.view(model, deterministic=False, use_running_average=False, raise_if_not_found=False)


def checkpointed(
    remat: bool, block: Callable[..., jax.Array], x: jax.Array, *args: nnx.Rngs | None
) -> jax.Array:
    """Calls a block; with `remat` its activations are computed again for the gradient, not kept.

    The gradients and the updates of running statistics are the same; training needs less memory
    and about a third more time.

    Args:
        remat: False just calls the block.
        block: an `nnx.Module` that returns one array with x's first axis.
        x: (B, ...).
        *args: random keys for the block, or None.
    """
    if not remat:
        return block(x, *args)
    graphdef, params, rest = nnx.split((block, args), nnx.Param, ...)

    def call(x: jax.Array, params: nnx.State, rest: nnx.State) -> tuple[jax.Array, nnx.State]:
        inner, inner_args = nnx.merge(graphdef, params, rest)
        y = inner(x, *inner_args)
        return y, nnx.state((inner, inner_args), nnx.Not(nnx.Param))

    y, rest = ops.recomputed(call, x, params, rest)
    nnx.update((block, args), rest)
    return y


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "none": lambda x: x,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
}


class ConvBN(nnx.Module):
    """Convolution, without bias unless asked for, batch normalisation, activation."""

    norm_pairs = (("conv", "bn"),)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        activation: str = "relu",
        bias: bool = False,
        groups: int = 1,
        weight_init: init.Initializer = init.kaiming_normal_fan_out,
        bias_init: init.Initializer | None = None,
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
            groups=groups,
            bias=bias,
            weight_init=weight_init,
            bias_init=bias_init,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.bn = ops.BatchNorm(out_channels, dtype=dtype, param_dtype=param_dtype)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, in), to (B, H', W', out)."""
        return ACTIVATIONS[self.activation](self.bn(self.conv(x)))
