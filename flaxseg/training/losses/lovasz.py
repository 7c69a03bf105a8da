"""Lovász-softmax: a convex surrogate of the mean intersection over union."""

import jax
import jax.numpy as jnp

from flaxseg.ops.pixels import Pixels
from flaxseg.training.losses.dice import mean_of_present


def lovasz_softmax(
    logits: jax.Array, labels: jax.Array, *, per_image: bool = False, align_corners: bool = False
) -> jax.Array:
    """Mean over the classes that occur of the Lovász extension of the Jaccard loss.

    Berman et al. 2018, equations 8 to 12, with classes="present". All pixels of the batch, or of
    an image, are sorted once for each class. Over a mesh the batch's are sorted together, which
    sends them to all devices; images are sorted where they are.

    Args:
        logits: scores, (B, H, W, K).
        labels: class ids, (B, H, W); other values than 0 to K - 1 do not count.
        per_image: the mean of every image's loss, over the images with labelled pixels; otherwise
            all pixels together.
        align_corners: how logits of another size are interpolated.

    Returns:
        A scalar, 0 to 1.
    """
    pixels = Pixels.of(logits, labels, align_corners)
    truth = pixels.is_label.astype(pixels.logits.dtype)
    errors = jnp.abs(truth - pixels.probabilities())
    groups, classes = labels.shape[0] if per_image else 1, pixels.classes

    def rows(values: jax.Array) -> jax.Array:
        return jnp.moveaxis(values.reshape(groups, -1, classes), -1, 1)  # (groups, K, pixels)

    errors, truth = rows(errors), rows(pixels.is_label)
    valid = pixels.valid.reshape(groups, 1, -1)
    slopes = _slopes(jax.lax.stop_gradient(jnp.where(valid, errors, -1)), truth)
    losses = jnp.sum(jnp.where(valid, errors * slopes, 0), axis=-1)
    return mean_of_present(losses, jnp.any(truth, axis=-1))


def _slopes(errors: jax.Array, truth: jax.Array) -> jax.Array:
    """By how much each pixel's error raises the Jaccard loss, (groups, K, pixels).

    Algorithm 1 of the paper: in the order of falling errors, the difference that one more wrong
    pixel makes to 1 - intersection / union.
    """
    # The truth travels in the lowest bit of the pixel's number, a second sort brings the slopes
    # back: gathers and scatters in another order than the memory's are slower than sorts.
    number = jax.lax.broadcasted_iota(jnp.int32, errors.shape, 2)
    _, packed = jax.lax.sort((-errors, 2 * number + truth), num_keys=1)
    positive = packed & 1
    total = jnp.sum(positive, axis=-1, keepdims=True)
    # Counted in whole numbers, then as a closed form: the difference of two neighbouring values of
    # the loss would lose all its digits to rounding.
    intersection = total - jnp.cumsum(positive, axis=-1)
    union = total + jnp.cumsum(1 - positive, axis=-1)
    intersection, union = intersection.astype(errors.dtype), union.astype(errors.dtype)
    of_negative = intersection / (union * jnp.maximum(union - 1, 1))
    slopes = jnp.where(positive > 0, 1 / jnp.maximum(union, 1), of_negative)
    _, slopes = jax.lax.sort((packed, slopes), num_keys=1)
    return slopes
