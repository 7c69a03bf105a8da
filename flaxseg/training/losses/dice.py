"""Dice loss: one minus twice the overlap over the sum of both areas."""

import jax
import jax.numpy as jnp

from flaxseg.ops.pixels import Pixels, ratio


def dice(
    logits: jax.Array,
    labels: jax.Array,
    *,
    per_image: bool = False,
    smooth: float = 0.0,
    align_corners: bool = False,
) -> jax.Array:
    """Mean over the classes that occur of 1 - (2 sum pg + s) / (sum p + sum g + s).

    p is the softmax probability of the class and g whether the pixel is labelled so; the sums go
    over the labelled pixels (Drozdzal et al. 2016; Milletari et al. 2016 square p and g).

    Args:
        logits: scores, (B, H, W, K).
        labels: class ids, (B, H, W); other values than 0 to K - 1 do not count.
        per_image: sums over each image and averages over the images, of which each counts the
            classes that occur in it; otherwise sums over the whole batch.
        smooth: s, in pixels; nothing here needs it to be finite.
        align_corners: how logits of another size are interpolated.

    Returns:
        A scalar, 0 to 1.
    """
    pixels = Pixels.of(logits, labels, align_corners)
    probabilities, truth = pixels.probabilities(), pixels.is_label.astype(pixels.logits.dtype)
    axes = (1, 2) if per_image else (0, 1, 2)
    overlap = jnp.sum(probabilities * truth, axis=axes)
    truth_area = jnp.sum(truth, axis=axes)
    areas = jnp.sum(probabilities, axis=axes) + truth_area
    losses = 1 - ratio(2 * overlap + smooth, areas + smooth)
    return mean_of_present(losses, truth_area > 0)


def mean_of_present(losses: jax.Array, present: jax.Array) -> jax.Array:
    """The mean over the classes that occur, then over the images that have any.

    Args:
        losses: (K,), or (B, K) per image.
        present: which classes occur, of the same shape.

    Returns:
        A scalar, 0 if no class occurs.
    """
    present = present.astype(losses.dtype)
    of_images = ratio(jnp.sum(losses * present, axis=-1), jnp.sum(present, axis=-1))
    return ratio(jnp.sum(of_images), jnp.sum(jnp.any(present > 0, axis=-1).astype(losses.dtype)))
