"""How exactly float32 is multiplied.

Accelerators do not multiply float32 as such unless they are told to: NVIDIA GPUs round the operands
of matrix products and convolutions to TF32 (10 bits behind the leading one instead of 23), TPUs to
bfloat16 (7 bits). Sums stay float32. CPUs round nothing. JAX calls the three degrees "default",
"high" and "highest": https://docs.jax.dev/en/latest/jax.lax.html#jax.lax.Precision.

A network multiplies with its own `matmul_precision`. What must never be rounded says `EXACT`:
interpolation, and the products of weights that are made before any image is seen. Statistics,
softmax, losses and metrics hold no products; they are sums in float32 or wider.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
from jax import lax

from flaxseg.precision import Precision as Precision

EXACT = lax.Precision.HIGHEST

ROUNDED = {
    "gpu": {"default": "TF32", "high": "TF32"},
    "tpu": {"default": "bfloat16", "high": "three bfloat16 parts"},
}
"""What float32 operands of a product become, by the platform of `jax.Device` and the precision."""

C = TypeVar("C", bound=Callable[..., Any])


def in_own_precision(method: C) -> C:
    """Lets a module's method trace its products with the module's `matmul_precision`."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision(self.matmul_precision):
            return method(self, *args, **kwargs)

    return cast(C, run)


def rounding(platform: str, dtype: str, precision: Precision) -> str | None:
    """What a program of this dtype does to operands of products there, None: it leaves them."""
    return ROUNDED.get(platform, {}).get(precision) if dtype == "float32" else None


def current_precision() -> str | None:
    """That of the products traced here and now.

    For gradients of one's own: they are traced later, outside of the network.
    """
    return jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
