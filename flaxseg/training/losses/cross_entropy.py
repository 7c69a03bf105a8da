"""Cross entropy with class weights, label smoothing and two averages."""

import jax
import jax.numpy as jnp

from flaxseg.ops.pixels import Average, Pixels, mean


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    weight: jax.Array | None = None,
    *,
    label_smoothing: float = 0.0,
    average: Average = "valid",
) -> jax.Array:
    """Mean cross entropy, by default as torch's with ignore_index=255.

    The scores of ignored pixels change nothing, even if they are not finite. Without any labelled
    pixel the loss is 0 and so are its gradients (torch gives NaN).

    Args:
        logits: scores, (B, H, W, K).
        labels: class ids, (B, H, W), any integer type; pixels whose id is not 0 to K - 1, such as
            255, do not count.
        weight: weight of each class, (K,); the mean is then the weighted one.
        label_smoothing: share of the label that is spread evenly over all classes, 0 to 1
            (Szegedy et al. 2016, section 7); with class weights as torch does it.
        average: "valid", torch's rule and mmsegmentation's avg_non_ignore, divides by the labelled
            pixels; "all", mmsegmentation's default, by all of them.

    Returns:
        A scalar.
    """
    pixels = Pixels.of(logits, labels)
    losses = pixel_cross_entropy(pixels, weight, label_smoothing)
    return mean(losses, pixels, pixels.weights(weight), average)


def pixel_cross_entropy(
    pixels: Pixels, weight: jax.Array | None, label_smoothing: float = 0.0
) -> jax.Array:
    """The weighted cross entropy of every pixel, (...); ignored ones have 0."""
    losses = pixels.weights(weight) * pixels.surprise()
    if label_smoothing:
        spread = _spread_cross_entropy(pixels, weight)
        losses = (1 - label_smoothing) * losses + label_smoothing * spread
    return losses


def _spread_cross_entropy(pixels: Pixels, weight: jax.Array | None) -> jax.Array:
    """The mean over the classes of their weighted cross entropies, (...)."""
    surprises = -jax.nn.log_softmax(pixels.logits, axis=-1)
    if weight is not None:
        surprises *= jnp.asarray(weight).astype(surprises.dtype)
    return jnp.where(pixels.valid, jnp.mean(surprises, axis=-1), 0)
