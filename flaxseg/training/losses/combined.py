"""Weighted sums: of several losses for one head, and of the heads of a network."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flaxseg.models import Output
from flaxseg.ops import resize_bilinear
from flaxseg.training.losses.cross_entropy import cross_entropy

HeadLoss = Callable[[jax.Array, jax.Array], jax.Array]
"""From logits (B, H, W, K) and class ids (B, H, W) to a scalar."""


NetworkLoss = Callable[[Output, jax.Array, Sequence[float]], jax.Array]
"""From a network's output, class ids (B, H, W) and auxiliary weights to a scalar."""


class Term(NamedTuple):
    """One loss of a sum.

    Attributes:
        weight: its factor.
        loss: the loss.
    """

    weight: float
    loss: HeadLoss


def combine(terms: Sequence[Term]) -> HeadLoss:
    """The weighted sum of losses, at least one, as a loss."""

    def total(logits: jax.Array, labels: jax.Array) -> jax.Array:
        values = [term.weight * term.loss(logits, labels) for term in terms]
        return sum(values[1:], start=values[0])

    return total


def segmentation_loss(
    output: Output,
    labels: jax.Array,
    aux_weights: Sequence[float] = (),
    *,
    main: HeadLoss = cross_entropy,
    aux: HeadLoss | None = None,
    align_corners: bool = False,
) -> jax.Array:
    """The loss of the main head plus the weighted ones of the auxiliary heads.

    Args:
        output: logits (B, H', W', K) and auxiliary logits of any sizes; all are interpolated to
            the labels' size.
        labels: class ids or 255, (B, H, W).
        aux_weights: weight of each auxiliary head's loss.
        main: loss of the main head.
        aux: loss of each auxiliary head, that of the main head if None.
        align_corners: how the logits are interpolated, see `ops.resize_bilinear`.

    Returns:
        A scalar.
    """
    if len(output.aux) != len(aux_weights):
        raise ValueError(
            f"{len(output.aux)} auxiliary outputs need as many weights, got {len(aux_weights)}"
        )
    height, width = labels.shape[1:]

    def resized(logits: jax.Array) -> jax.Array:
        return resize_bilinear(logits, (height, width), align_corners=align_corners)

    loss = main(resized(output.logits), labels)
    for weight, logits in zip(aux_weights, output.aux, strict=True):
        loss += weight * (aux or main)(resized(logits), labels)
    return loss


def labelled_pixels(output: Output, labels: jax.Array) -> jax.Array:
    """The number of pixels that a loss with the average "valid" is a mean over, float32."""
    classes = output.logits.shape[-1]
    return jnp.sum((labels < classes) & (labels >= 0), dtype=jnp.float32)
