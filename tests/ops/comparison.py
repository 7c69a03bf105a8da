"""Comparison of one layer with its torch twin in float64."""

import jax
import numpy as np
import torch
from jax import numpy as jnp

BOUND = 1e-12


def nchw(x) -> torch.Tensor:
    """(B, H, W, C) as a torch (B, C, H, W) tensor that collects gradients."""
    return torch.from_numpy(
        np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1))
    ).requires_grad_()


def nhwc(x: torch.Tensor) -> np.ndarray:
    return np.moveaxis(x.detach().numpy(), 1, -1)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def assert_close(ours, theirs, bound: float = BOUND):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.dtype == theirs.dtype == np.float64
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= bound * max(1.0, np.abs(theirs).max())


def assert_same_map(ours, theirs, x: np.ndarray, bound: float = BOUND):
    """Outputs and input gradients of two (B, H, W, C) functions, under a random cotangent."""
    reference_input = nchw(x)
    reference = theirs(reference_input)
    cotangent = random(*nhwc(reference).shape, seed=1)
    reference.backward(nchw(cotangent).detach())
    result, gradient = _value_and_pullback(ours)(jnp.asarray(x), jnp.asarray(cotangent))
    assert_close(result, nhwc(reference), bound)
    assert_close(gradient, nhwc(reference_input.grad), bound)


def _value_and_pullback(function):
    @jax.jit
    def run(x, cotangent):
        result, pullback = jax.vjp(function, x)
        return result, pullback(cotangent)[0]

    return run
