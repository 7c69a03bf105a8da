"""What a training step keeps for its gradient on a CPU, by XLA's own account."""

from collections.abc import Callable

import jax
from flax import nnx
from jax import numpy as jnp

from flaxseg import ops
from flaxseg.models.blocks import ConvBN

LAYERS = 8
SHAPE = (2, 64, 64, 16)


class Widened(nnx.Module):
    """A map to twice the channels and back, with GELU between."""

    def __init__(self, rngs: nnx.Rngs):
        self.up = ops.Linear(SHAPE[-1], 2 * SHAPE[-1], rngs=rngs)
        self.down = ops.Linear(2 * SHAPE[-1], SHAPE[-1], rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, C), to the same shape."""
        return self.down(ops.gelu(self.up(x)))


def temporary_maps(layer: Callable[[nnx.Rngs], nnx.Module]) -> float:
    """Temporary memory of value and gradient of a stack of layers, in maps of SHAPE."""
    layers = [layer(nnx.Rngs(number)) for number in range(LAYERS)]
    graphdef, state = nnx.split(nnx.List(layers))

    def loss(state: nnx.State, x: jax.Array) -> jax.Array:
        for module in nnx.merge(graphdef, state):
            x = module(x)
        return jnp.square(x).sum()

    x = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
    compiled = jax.jit(jax.grad(loss)).lower(state, x).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes / (4 * x.size)


def test_a_norm_keeps_the_map_that_it_normalises_alone():
    maps = temporary_maps(lambda rngs: ConvBN(SHAPE[-1], SHAPE[-1], 3, rngs=rngs))
    assert LAYERS < maps < LAYERS + 8  # the convolutions' outputs, and what one layer works with


def test_gelu_keeps_no_derivative():
    maps = temporary_maps(Widened)
    assert maps < 5 * LAYERS + 10  # two on both sides of GELU each and one between the layers
