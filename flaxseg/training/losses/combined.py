"""Weighted sums: of several losses for one head, and of the heads of a network."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flaxseg.models import Output
from flaxseg.training.losses.cross_entropy import cross_entropy

HeadLoss = Callable[..., jax.Array]
"""From logits (B, h, w, K) and class ids (B, H, W) to a scalar; `align_corners=` tells how logits
of another size than that of the labels are interpolated."""


NetworkLoss = Callable[..., jax.Array]
"""From a network's output, class ids (B, H, W) and auxiliary weights to a scalar; `align_corners=`
is given where the network leaves the interpolation of its logits to the loss."""


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

    def total(logits: jax.Array, labels: jax.Array, *, align_corners: bool = False) -> jax.Array:
        corners = align_corners
        values = [t.weight * t.loss(logits, labels, align_corners=corners) for t in terms]
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
        output: logits (B, H', W', K) and auxiliary logits of any sizes; the losses
            interpolate them to the labels' size.
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
    loss = main(output.logits, labels, align_corners=align_corners)
    for weight, logits in zip(aux_weights, output.aux, strict=True):
        loss += weight * (aux or main)(logits, labels, align_corners=align_corners)
    return loss


def labelled_pixels(output: Output, labels: jax.Array) -> jax.Array:
    """The number of pixels that a loss with the average "valid" is a mean over, float32."""
    classes = output.logits.shape[-1]
    return jnp.sum((labels < classes) & (labels >= 0), dtype=jnp.float32)
