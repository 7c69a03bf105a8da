"""The loss of the Oxford-IIIT Pet notebook."""

import jax
import jax.numpy as jnp

from flaxseg.ops.pixels import ratio
from flaxseg.ops.soft_iou import soft_iou


def iou(
    logits: jax.Array, labels: jax.Array, *, smooth: float = 1e-3, align_corners: bool = False
) -> jax.Array:
    """-log of the batch mean of the soft intersection over union, see `flaxseg.ops.soft_iou`.

    Args:
        logits: scores, (B, H, W, K).
        labels: class ids, (B, H, W); other values than 0 to K - 1 do not count, nor do images
            without any label.
        smooth: in pixels.
        align_corners: how logits of another size are interpolated.

    Returns:
        A scalar, at least 0.
    """
    values, counts = soft_iou(logits, labels, smooth=smooth, align_corners=align_corners)
    mean = ratio(jnp.sum(jnp.where(counts, values, 0)), jnp.sum(counts.astype(values.dtype)))
    return -jnp.log(jnp.where(jnp.any(counts), mean, 1))
