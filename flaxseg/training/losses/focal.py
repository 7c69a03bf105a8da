"""Focal loss: cross entropy that looks away from what is right already."""

import jax
import jax.numpy as jnp

from flaxseg.ops.pixels import Average, Pixels, mean


def focal(
    logits: jax.Array,
    labels: jax.Array,
    weight: jax.Array | None = None,
    *,
    gamma: float = 2.0,
    average: Average = "valid",
    align_corners: bool = False,
) -> jax.Array:
    """Mean of -(1 - p) ** gamma * log p over the pixels, p the softmax probability of the label.

    Lin et al. 2017, equation 4, with the class weights as its alpha (equation 5).

    Args:
        logits: scores, (B, H, W, K).
        labels: class ids, (B, H, W); other values than 0 to K - 1 do not count.
        weight: weight of each class, (K,); the mean is then the weighted one.
        gamma: how much less the easy pixels count, at least 0; 0 is cross entropy.
        average: as for `cross_entropy`.
        align_corners: how logits of another size are interpolated.

    Returns:
        A scalar.
    """
    pixels = Pixels.of(logits, labels, align_corners)
    surprise = pixels.surprise()
    weights = pixels.weights(weight)
    losses = weights * surprise
    if gamma:
        # Where p rounds to 1 the slope of (1 - p) ** gamma may be infinite; that of the product
        # with log p is 0.
        missed = surprise > 0
        wrong = -jnp.expm1(-jnp.where(missed, surprise, 1))
        losses *= jnp.where(missed, wrong**gamma, 0)
    return mean(jnp.sum(losses), pixels, weights, average)
