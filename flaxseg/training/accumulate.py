"""Gradients of a batch that is too large for the device, part by part."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Seen(NamedTuple):
    """What a loss was computed from.

    Attributes:
        weight: of what the loss is a mean over, such as labelled pixels.
        hits: number of pixels predicted right; None where not asked for.
        terms: what the loss is the sum of, by name; None where it is one thing.
    """

    weight: jax.Array
    hits: jax.Array | None = None
    terms: dict[str, jax.Array] | None = None


Gradient = Callable[..., tuple[tuple[jax.Array, tuple[Any, Seen]], Any]]
"""(params, stats, image, label, key) -> ((loss, (stats, seen)), gradients)."""


def accumulate(gradient: Gradient, parts: int) -> Gradient:
    """A gradient function that divides its batch into parts and computes one after another.

    Loss and gradients are the weighted mean of the parts', which is the whole batch's if the loss
    is a mean over `Seen.weight` things and the network has no BatchNorm.
    BatchNorm normalises over each part, and its running statistics move once for each.

    Args:
        gradient: of a batch.
        parts: how many; it divides the batch. 1 gives the function itself.
    """
    if parts == 1:
        return gradient

    def accumulated(params, stats, image, label, key):
        def add(carry, part):
            stats, total = carry
            number, image, label = part
            part_key = jax.random.fold_in(key, number)
            (loss, (stats, seen)), grads = gradient(params, stats, image, label, part_key)
            total = jax.tree.map(lambda t, g: t + g * seen.weight.astype(g.dtype), total, grads)
            return (stats, total), (loss, seen)

        zeros = jax.tree.map(jnp.zeros_like, params)
        split = (jnp.arange(parts), _split(image, parts), _split(label, parts))
        (stats, total), (losses, parts_seen) = jax.lax.scan(add, (stats, zeros), split)
        seen = jax.tree.map(jnp.sum, parts_seen._replace(terms=None))
        # Without any labelled pixel all sums are 0.
        count = jnp.where(seen.weight > 0, seen.weight, 1)
        grads = jax.tree.map(lambda t: t / count.astype(t.dtype), total)

        def mean(values: jax.Array) -> jax.Array:
            return jnp.sum(values * parts_seen.weight) / count

        seen = seen._replace(terms=jax.tree.map(mean, parts_seen.terms))
        return (mean(losses), (stats, seen)), grads

    return accumulated


def _split(batch: jax.Array, parts: int) -> jax.Array:
    """(B, ...) as (parts, B / parts, ...).

    Each part takes every parts-th sample: so it is spread over the devices as the batch is, and no
    sample has to move.
    """
    grouped = batch.reshape(batch.shape[0] // parts, parts, *batch.shape[1:])
    return grouped.swapaxes(0, 1)
