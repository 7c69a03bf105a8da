"""Ways to compute the same convolution, of which each platform gets its own."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import lax

from flaxseg.ops.recompute import after

Gradients = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class Form(NamedTuple):
    """One way.

    Attributes:
        forward: (map, weight) -> output.
        gradients: (map, weight, gradient of the output) -> those of the map and of the weight.
    """

    forward: Callable[[jax.Array, jax.Array], jax.Array]
    gradients: Gradients

    @classmethod
    def of(cls, forward: Callable[[jax.Array, jax.Array], jax.Array]) -> "Form":
        """The form whose gradients are those that JAX makes."""

        def gradients(x: jax.Array, weight: jax.Array, cotangent: jax.Array):
            (of_map,) = jax.linear_transpose(lambda x: forward(x, weight), x)(cotangent)
            (of_weight,) = jax.linear_transpose(lambda w: forward(x, w), weight)(cotangent)
            return of_map, of_weight

        return cls(forward, gradients)


Forms = tuple[tuple[str, Form], ...]
"""Ways by JAX's names of platforms; "default" is that of all others."""


def in_turn(gradients: Gradients) -> Gradients:
    """The gradients, of which nothing is made before that of the output is there.

    XLA:CPU would pad the map for the gradient of the weight as soon as it has it, and keep that
    copy. Later it makes the map anew where that is cheap, as behind a norm and a ReLU, and keeps
    none.
    """

    def made_late(x: jax.Array, weight: jax.Array, cotangent: jax.Array):
        return gradients(after(cotangent, x), weight, cotangent)

    return made_late


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def convolved(forms: Forms, x: jax.Array, weight: jax.Array) -> jax.Array:
    """The convolution, in the form of the platform that the program is lowered for.

    Args:
        forms: the ways; the same object for equal layers, which are traced once.
        x: the map.
        weight: the kernel.
    """
    return _output(forms, x, weight)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _output(forms: Forms, x: jax.Array, weight: jax.Array) -> jax.Array:
    return lax.platform_dependent(x, weight, **{name: form.forward for name, form in forms})


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _gradients(
    forms: Forms, x: jax.Array, weight: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    chosen = {name: form.gradients for name, form in forms}
    return lax.platform_dependent(x, weight, cotangent, **chosen)


def _forward(forms: Forms, x: jax.Array, weight: jax.Array):
    return _output(forms, x, weight), (x, weight)


def _backward(forms: Forms, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array):
    return _gradients(forms, *saved, cotangent)


convolved.defvjp(_forward, _backward)
