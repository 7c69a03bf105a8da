"""Batch normalisation folded into the convolutions before it, for inference.

In eval mode a BatchNorm multiplies every channel by a number and adds another. The convolution in
front of it can as well have weights that are multiplied already: then one sum is left of the norm.
"""

from typing import TypeVar

import jax
from flax import nnx
from jax import lax
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg import ops
from flaxseg.errors import FlaxsegError
from flaxseg.models.blocks import eval_view

M = TypeVar("M", bound=nnx.Module)


class Shift(nnx.Module):
    """What is left of a folded BatchNorm: adds a number to each channel of (B, H, W, C)."""

    def __init__(self, shift: jax.Array, *, dtype: DTypeLike):
        self.shift = nnx.Param(shift, folded=True)
        self.dtype = dtype
        self.use_running_average = True

    def set_view(self, use_running_average: bool | None = None):
        """Lets `nnx.view` ask for training, which the next call refuses."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shifts x, (B, H, W, C), in float32 or wider; the result is in `dtype`.

        Raises:
            FlaxsegError: in train mode.
        """
        if not self.use_running_average:
            raise FlaxsegError(
                "a folded network cannot be trained, as its norms know no batch statistics: train "
                "the one that was given to flaxseg.fold"
            )
        return (x + self.shift[...]).astype(self.dtype)


def fold(model: M) -> M:
    """A copy in eval mode whose convolutions do the work of the batch norms behind them.

    The logits are those of `eval_view(model)` up to rounding. A pass over the map is spared for
    each norm; folding itself takes as much as a pass over the weights, and works inside `jax.jit`.
    The copy is for inference alone: later changes of the model do not reach it, in train mode it
    raises, and it cannot be saved. A folded model may be folded again.

    A module names its pairs in `norm_pairs`, such as `(("conv", "bn"),)`: attributes that are an
    `ops.Conv` and the `ops.BatchNorm` of its output, with nothing in between but maps that keep
    every channel apart, are linear, and leave constants as they are, such as interpolation. Norms
    of anything else stay.

    Weights are multiplied in float32 or wider and cast to the convolution's dtype by each call. So
    under bfloat16 the products are rounded where the plain weights were before; what is added to
    each channel stays float32.

    Args:
        model: a network, in train or eval mode; it is left as it is.

    Raises:
        FlaxsegError: `norm_pairs` of a module names a convolution or a norm twice.
    """
    folded = eval_view(nnx.clone(model))
    for _, module in list(nnx.iter_modules(folded)):
        for conv_name, norm_name in _pairs(module):
            conv, norm = getattr(module, conv_name), getattr(module, norm_name)
            if type(conv) is ops.Conv and type(norm) is ops.BatchNorm:
                conv, shift = _folded(conv, norm)
                setattr(module, conv_name, conv)
                setattr(module, norm_name, shift)
    return folded


def _pairs(module: nnx.Module) -> tuple[tuple[str, str], ...]:
    pairs = getattr(module, "norm_pairs", ())
    names = [name for pair in pairs for name in pair]
    if len(set(names)) < len(names):
        raise FlaxsegError(
            f"{type(module).__name__}.norm_pairs is {pairs}: a convolution folds with one norm, so "
            "name each of them once, or leave out those that are used more often"
        )
    return pairs


def _folded(conv: ops.Conv, norm: ops.BatchNorm) -> tuple[ops.Conv, Shift]:
    """Both as what replaces them; they are left as they are, for others may hold them."""
    wide = jnp.promote_types(norm.weight.dtype, jnp.float32)
    scale = norm.weight[...] * lax.rsqrt(norm.running_var[...].astype(wide) + norm.eps)
    mean = norm.running_mean[...].astype(wide)
    if conv.bias is not None:
        mean = mean - conv.bias[...]
    conv = nnx.clone(conv)
    conv.weight.set_value(conv.weight[...] * scale)
    conv.bias = nnx.data(None)
    return conv, Shift(norm.bias[...] - mean * scale, dtype=norm.dtype)
