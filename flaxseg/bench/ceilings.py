"""What the machine reaches without a network: a product of matrices, and a copy.

Any framework can be asked: it gives calls that make one product or copy and wait for it.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from flaxseg.ops import Precision

Call = Callable[[], Any]

TURNS = 5
"""Calls of which the fastest counts."""

LONG = 0.02
"""Seconds of a call beside which its start does not count."""

SIDES = (256, 512, 1024, 2048, 4096, 8192, 16384)
LENGTH = 1 << 26
"""Numbers of float32 in a copy: no cache holds them."""


class Ceilings(NamedTuple):
    """The fastest of some calls.

    Attributes:
        product: operations per second of a product of matrices, a multiply-add being two.
        copy: bytes per second, read and written.
    """

    product: float
    copy: float


def measure_ceilings(
    product: Callable[[int], Call],
    copy: Callable[[int], Call],
    sides: tuple[int, ...] = SIDES,
    length: int = LENGTH,
) -> Ceilings:
    """Measures a framework.

    Args:
        product: of the side of two square matrices, gives a call that multiplies them.
        copy: of a number of float32 numbers, gives a call that reads and writes them.
        sides: multiplied until a product takes `LONG`; the fastest counts.
        length: of the copy.
    """
    rates = []
    for side in sides:
        seconds = _fastest(product(side))
        rates.append(2 * side**3 / seconds)
        if seconds >= LONG:
            break
    return Ceilings(max(rates), 8 * length / _fastest(copy(length)))


def jax_product(
    side: int, dtype: DTypeLike = jnp.float32, precision: Precision = "highest"
) -> Call:
    """A product of JAX on its default device, of this format and precision."""
    square = jnp.ones((side, side), dtype)
    multiply = jax.jit(functools.partial(jnp.matmul, precision=precision))
    return lambda: jax.block_until_ready(multiply(square, square))


def jax_copy(length: int) -> Call:
    """Adds to every number of a vector where it lies, by JAX on its default device.

    A result elsewhere would have to wait for the system to hand out new memory.
    """
    vector, add = jnp.ones(length, jnp.float32), jax.jit(lambda x: x + 1, donate_argnums=0)

    def call() -> None:
        nonlocal vector
        vector = jax.block_until_ready(add(vector))

    return call


def _fastest(call: Call) -> float:
    """Seconds, after a call that compiles."""
    call()
    return min(_seconds(call) for _ in range(TURNS))


def _seconds(call: Call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
