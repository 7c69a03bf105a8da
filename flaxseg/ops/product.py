"""Products of two arrays with sums in float32, whatever they are made of."""

import functools

import jax
from jax import numpy as jnp

from flaxseg.ops.precision import current_precision


def product(spec: str, a: jax.Array, b: jax.Array, precision: str | None = None) -> jax.Array:
    """The einsum of two arrays of one dtype, in float32 or wider.

    Its gradient is multiplied in that dtype, too. JAX would take that of the result as it is, and
    so multiply in float32 where bfloat16 was meant, at a fraction of the speed.

    Args:
        spec: as of `jnp.einsum`; an index of one array is in the other or in the result.
        a: any floating-point array.
        b: another.
        precision: of float32; None is the one that holds here.
    """
    return _product(spec, precision or current_precision(), a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(spec: str, precision: str | None, a: jax.Array, b: jax.Array) -> jax.Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(spec, a, b, precision=precision, preferred_element_type=wide)


def _forward(spec: str, precision: str | None, a: jax.Array, b: jax.Array):
    return _product(spec, precision, a, b), (a, b)


def _backward(
    spec: str,
    precision: str | None,
    saved: tuple[jax.Array, jax.Array],
    gradient: jax.Array,
):
    a, b = saved
    operands, z = spec.split("->")
    x, y = operands.split(",")
    gradient = gradient.astype(a.dtype)
    of_a = product(f"{z},{y}->{x}", gradient, b, precision)
    of_b = product(f"{x},{z}->{y}", a, gradient, precision)
    return of_a.astype(a.dtype), of_b.astype(b.dtype)


_product.defvjp(_forward, _backward)
