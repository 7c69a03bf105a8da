"""The soft intersection over union of the Pet tutorial, and its loss."""

import jax
import jax.numpy as jnp

from flaxseg.training.losses.pixels import Pixels, ratio


def iou(logits: jax.Array, labels: jax.Array, *, smooth: float = 1e-3) -> jax.Array:
    """-log of the batch mean of (sum pg + s) / (sum (p + g - pg) + s).

    p is the softmax probability and g whether the pixel is labelled so; the sums go over an
    image's labelled pixels and all classes together. This is the loss of the Oxford-IIIT Pet
    notebook.

    Args:
        logits: scores, (B, H, W, K).
        labels: class ids, (B, H, W); other values than 0 to K - 1 do not count, nor do images
            without any label.
        smooth: s, in pixels.

    Returns:
        A scalar, at least 0.
    """
    values, counts = soft_iou(logits, labels, smooth=smooth)
    mean = ratio(jnp.sum(jnp.where(counts, values, 0)), jnp.sum(counts.astype(values.dtype)))
    return -jnp.log(jnp.where(jnp.any(counts), mean, 1))


def soft_iou(
    logits: jax.Array, labels: jax.Array, *, smooth: float = 1e-3
) -> tuple[jax.Array, jax.Array]:
    """Each image's soft intersection over union (B,), and whether it has any label (B,)."""
    pixels = Pixels.of(logits, labels)
    probabilities, truth = pixels.probabilities(), pixels.is_label.astype(pixels.logits.dtype)
    both = jnp.sum(probabilities * truth, axis=(1, 2, 3))
    either = jnp.sum(probabilities + truth, axis=(1, 2, 3)) - both
    return (both + smooth) / (either + smooth), jnp.any(pixels.valid, axis=(1, 2))
