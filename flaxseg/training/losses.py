"""Losses over label maps with ignored pixels."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from flaxseg.models import Output
from flaxseg.ops import resize_bilinear


def cross_entropy(
    logits: jax.Array, labels: jax.Array, weight: jax.Array | None = None
) -> jax.Array:
    """Mean cross entropy over the labelled pixels, as torch's with ignore_index=255.

    The scores of the other pixels change nothing, even if they are not finite. Computed in float32,
    or float64 for float64 logits. Without any labelled pixel the loss is 0 and so are its gradients
    (torch gives NaN).

    Args:
        logits: scores, (B, H, W, K).
        labels: class ids, (B, H, W), any integer type; pixels whose id is not 0 to K - 1, such as
            255, do not count.
        weight: weight of each class, (K,); the mean is then the weighted one.

    Returns:
        A scalar.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    # Comparing with an iota instead of gathering: the gradient of a gather is a scatter, which is
    # several times slower.
    is_label = jnp.arange(logits.shape[-1]) == labels[..., None].astype(jnp.int32)
    valid = jnp.any(is_label, axis=-1)
    # Masked before the logarithm: a gradient of 0 times infinity would be nan.
    logits = jnp.where(valid[..., None], logits, 0)
    log_sum = jax.nn.logsumexp(logits, axis=-1)
    losses = log_sum - jnp.sum(jnp.where(is_label, logits, 0), axis=-1)
    weights = valid.astype(logits.dtype)
    if weight is not None:
        weights *= jnp.sum(jnp.where(is_label, weight.astype(logits.dtype), 0), axis=-1)
    total = jnp.sum(weights)
    return jnp.sum(weights * losses) / jnp.where(total > 0, total, 1)


def segmentation_loss(
    output: Output, labels: jax.Array, aux_weights: Sequence[float] = ()
) -> jax.Array:
    """Cross entropy of the main head plus the weighted ones of the auxiliary heads.

    Args:
        output: logits (B, H', W', K) and auxiliary logits of any sizes; all are interpolated to
            the labels' size.
        labels: class ids or 255, (B, H, W).
        aux_weights: weight of each auxiliary head's loss.

    Returns:
        A scalar.
    """
    if len(output.aux) != len(aux_weights):
        raise ValueError(
            f"{len(output.aux)} auxiliary outputs need as many weights, got {len(aux_weights)}"
        )
    loss = _resized_cross_entropy(output.logits, labels)
    for weight, logits in zip(aux_weights, output.aux, strict=True):
        loss += weight * _resized_cross_entropy(logits, labels)
    return loss


def labelled_pixels(output: Output, labels: jax.Array) -> jax.Array:
    """The number of pixels that `segmentation_loss` is a mean over, float32."""
    classes = output.logits.shape[-1]
    return jnp.sum((labels < classes) & (labels >= 0), dtype=jnp.float32)


def _resized_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    height, width = labels.shape[1:]
    return cross_entropy(resize_bilinear(logits, (height, width), align_corners=False), labels)
