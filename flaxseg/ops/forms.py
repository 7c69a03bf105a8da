"""Ways to compute the same convolution, of which each platform gets its own."""

import functools
from collections.abc import Callable, Mapping
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
def convolved(forms: Mapping[str, Form], x: jax.Array, weight: jax.Array) -> jax.Array:
    """The convolution, in the form of the platform that the program is lowered for.

    Args:
        forms: by JAX's names of platforms; "default" is that of all others.
        x: the map.
        weight: the kernel.
    """
    chosen = {platform: form.forward for platform, form in forms.items()}
    return lax.platform_dependent(x, weight, **chosen)


def _forward(forms: Mapping[str, Form], x: jax.Array, weight: jax.Array):
    return convolved(forms, x, weight), (x, weight)


def _backward(forms: Mapping[str, Form], saved: tuple[jax.Array, jax.Array], cotangent: jax.Array):
    chosen = {platform: form.gradients for platform, form in forms.items()}
    return lax.platform_dependent(*saved, cotangent, **chosen)


convolved.defvjp(_forward, _backward)
