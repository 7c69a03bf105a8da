"""Online hard example mining: cross entropy of the hard pixels alone (Shrivastava et al. 2016).

Two rules are in use, and they differ in what is hard and in what the sum is divided by. Both look
at the plain cross entropy, without class weights and smoothing, of all pixels of the batch.
"""

import math

import jax
import jax.numpy as jnp

from flaxseg.ops.pixels import Average, Pixels, mean, ratio
from flaxseg.training.losses.cross_entropy import total_cross_entropy
from flaxseg.training.losses.rank import kth_largest

LEAST_SHARE = 16
"""CoinCheung's rule keeps at least one labelled pixel in 16."""


def ohem(
    logits: jax.Array,
    labels: jax.Array,
    weight: jax.Array | None = None,
    *,
    threshold: float | None = 0.7,
    label_smoothing: float = 0.0,
    align_corners: bool = False,
) -> jax.Array:
    """Mean cross entropy of the hard pixels, by the rule of CoinCheung/BiSeNet.

    Hard are the pixels whose label has a probability below the threshold. Where these are fewer
    than a sixteenth of the labelled pixels, it is the mean over that many hardest ones; of equally
    hard ones at the border each counts in part. Their rule gives NaN without any hard pixel among
    fewer than 16 labelled ones; here it is then the hardest one, and 0 without labelled pixels.

    Args:
        logits: scores, (B, H, W, K).
        labels: class ids, (B, H, W); other values than 0 to K - 1 do not count.
        weight: weight of each class, (K,), in the mean over the hard pixels.
        threshold: probability above which a pixel is easy, 0 to 1. None: the hardest sixteenth.
        label_smoothing: as for `cross_entropy`.
        align_corners: as for `cross_entropy`.

    Returns:
        A scalar.
    """
    pixels = Pixels.of(logits, labels, align_corners)
    surprise = pixels.hardness()
    count = jnp.sum(pixels.valid)
    least = jnp.where(count > 0, jnp.maximum(count // LEAST_SHARE, 1), 0)
    hard = pixels.valid & _above(surprise, _bound(threshold))
    enough = jnp.sum(hard) >= least
    kept = jnp.where(enough, hard, _hardest(surprise, pixels.valid, least))
    total = total_cross_entropy(pixels, weight, label_smoothing, kept)
    return ratio(total, jnp.sum(kept * pixels.weights(weight)))


def ohem_mmseg(
    logits: jax.Array,
    labels: jax.Array,
    weight: jax.Array | None = None,
    *,
    threshold: float | None = 0.7,
    min_kept: int = 100_000,
    label_smoothing: float = 0.0,
    average: Average = "valid",
    align_corners: bool = False,
) -> jax.Array:
    """Cross entropy of the hard pixels, by the rule of mmsegmentation's OHEMPixelSampler.

    Hard are the pixels whose label has a probability below the threshold or, if that is more, the
    `min_kept` times B lowest probabilities, without those that equal the next one. The easy pixels
    count as 0 in the mean, which `average` tells: mmsegmentation's default is "all".

    Args:
        logits: scores, (B, H, W, K).
        labels: class ids, (B, H, W); other values than 0 to K - 1 do not count.
        weight: weight of each class, (K,); the mean is then the weighted one.
        threshold: probability above which a pixel is easy, 0 to 1. None: `min_kept` times B hardest
            pixels, of equally hard ones each in part.
        min_kept: pixels that are kept at least, per image.
        label_smoothing: as for `cross_entropy`.
        average: as for `cross_entropy`.
        align_corners: as for `cross_entropy`.

    Returns:
        A scalar.
    """
    pixels = Pixels.of(logits, labels, align_corners)
    surprise = pixels.hardness()
    count, kept_at_least = jnp.sum(pixels.valid), min(min_kept * labels.shape[0], labels.size)
    if threshold is None:
        kept = _hardest(surprise, pixels.valid, jnp.minimum(kept_at_least, count))
    else:
        # As theirs: the next one after those that are kept, and the last one at most.
        place = jnp.minimum(kept_at_least + 1, count)
        limit = jnp.minimum(kth_largest(surprise, pixels.valid, place), _bound(threshold))
        kept = pixels.valid & _above(surprise, limit)
    total = total_cross_entropy(pixels, weight, label_smoothing, kept)
    return mean(total, pixels, pixels.weights(weight), average)


def _bound(threshold: float | None) -> float:
    """The cross entropy of a label with that probability."""
    return -math.log(threshold) if threshold else math.inf


def _above(surprise: jax.Array, limit: jax.Array | float) -> jax.Array:
    # nan is hard: a network that diverges must not go unnoticed.
    return ~(surprise <= limit)


def _hardest(surprise: jax.Array, valid: jax.Array, count: jax.Array) -> jax.Array:
    """The share, 0 to 1, of every pixel among the `count` hardest, (B, H, W)."""
    border = kth_largest(surprise, valid, count)
    above = valid & _above(surprise, border)
    tied = valid & (surprise == border)
    left = (count - jnp.sum(above)).astype(surprise.dtype)
    share = ratio(left, jnp.sum(tied).astype(surprise.dtype))
    return jnp.where(above, 1, jnp.where(tied, share, 0))
