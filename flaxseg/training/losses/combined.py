"""Weighted sums: of several losses for one head, and of the heads of a network."""

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flaxseg.models import Output
from flaxseg.training.losses.cross_entropy import cross_entropy

HeadLoss = Callable[..., jax.Array]
"""From logits (B, h, w, K) and class ids (B, H, W) to a scalar; `align_corners=` tells how logits
of another size than that of the labels are interpolated."""


NetworkLoss = Callable[..., dict[str, jax.Array]]
"""From a network's output, class ids (B, H, W) and auxiliary weights to scalars by name, of which
the loss is the sum, see `added`; `align_corners=` is given where the network leaves the
interpolation of its logits to the loss."""


class Term(NamedTuple):
    """One loss of a sum.

    Attributes:
        weight: its factor.
        loss: the loss.
        name: what it is called among the terms of a network's loss.
    """

    weight: float
    loss: HeadLoss
    name: str = "main"


def combine(terms: Sequence[Term]) -> HeadLoss:
    """The weighted sum of losses, at least one, as a loss."""

    def total(logits: jax.Array, labels: jax.Array, *, align_corners: bool = False) -> jax.Array:
        return added(_weighted(terms, logits, labels, align_corners))

    return total


def added(values: Iterable[jax.Array]) -> jax.Array:
    """The sum of at least one scalar, from the first to the last."""
    return functools.reduce(operator.add, values)


def loss_terms(
    output: Output,
    labels: jax.Array,
    aux_weights: Sequence[float] = (),
    *,
    main: Sequence[Term] = (Term(1.0, cross_entropy),),
    aux: HeadLoss | None = None,
    align_corners: bool = False,
) -> dict[str, jax.Array]:
    """What the loss of a network is the sum of: terms of the main head, and each auxiliary head.

    Args:
        output: as for `segmentation_loss`, likewise `labels`, `aux_weights` and `align_corners`.
        main: terms of the main head's loss, of different names.
        aux: loss of each auxiliary head, that of the main head if None.

    Returns:
        Scalars times their weights, in the order in which `added` adds them: those of the main head
        by their names, those of the auxiliary heads as "aux1", "aux2" and so on.
    """
    if len(output.aux) != len(aux_weights):
        raise ValueError(
            f"{len(output.aux)} auxiliary outputs need as many weights, got {len(aux_weights)}"
        )
    aux = aux or combine(main)
    values = _weighted(main, output.logits, labels, align_corners)
    values += [
        weight * aux(logits, labels, align_corners=align_corners)
        for weight, logits in zip(aux_weights, output.aux, strict=True)
    ]
    return dict(zip(term_names(main, aux_weights), values, strict=True))


def term_names(main: Sequence[Term], aux_weights: Sequence[float]) -> list[str]:
    """What `loss_terms` calls its terms, in their order."""
    return [term.name for term in main] + [f"aux{n}" for n, _ in enumerate(aux_weights, 1)]


def _weighted(
    terms: Sequence[Term], logits: jax.Array, labels: jax.Array, align_corners: bool
) -> list[jax.Array]:
    return [t.weight * t.loss(logits, labels, align_corners=align_corners) for t in terms]


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
    terms = loss_terms(
        output,
        labels,
        aux_weights,
        main=(Term(1.0, main),),
        aux=aux or main,
        align_corners=align_corners,
    )
    return added(terms.values())


def labelled_pixels(output: Output, labels: jax.Array) -> jax.Array:
    """The number of pixels that a loss with the average "valid" is a mean over, float32."""
    classes = output.logits.shape[-1]
    return jnp.sum((labels < classes) & (labels >= 0), dtype=jnp.float32)
