"""The intersection over union of probabilities and labels, Oxford-IIIT Pet notebook."""

import jax
import jax.numpy as jnp

from flaxseg.ops.pixels import Pixels


def soft_iou(
    logits: jax.Array, labels: jax.Array, *, smooth: float = 1e-3, align_corners: bool = False
) -> tuple[jax.Array, jax.Array]:
    """(sum pg + s) / (sum (p + g - pg) + s) of each picture.

    p is the softmax probability and g whether the pixel is labelled so; the sums go over a
    picture's labelled pixels and all classes together.

    Args:
        logits: scores, (B, H, W, K).
        labels: class ids, (B, H, W); other values than 0 to K - 1 do not count.
        smooth: s, in pixels.
        align_corners: how logits of another size are interpolated.

    Returns:
        The values (B,), and whether the picture has any label (B,).
    """
    pixels = Pixels.of(logits, labels, align_corners)
    probabilities, truth = pixels.probabilities(), pixels.is_label.astype(pixels.logits.dtype)
    both = jnp.sum(probabilities * truth, axis=(1, 2, 3))
    either = jnp.sum(probabilities + truth, axis=(1, 2, 3)) - both
    return (both + smooth) / (either + smooth), jnp.any(pixels.valid, axis=(1, 2))
