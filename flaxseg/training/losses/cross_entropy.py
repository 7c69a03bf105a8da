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
    align_corners: bool = False,
) -> jax.Array:
    """Mean cross entropy, by default as torch's with ignore_index=255.

    The scores of ignored pixels change nothing, even if they are not finite. Without any labelled
    pixel the loss is 0 and so are its gradients (torch gives NaN).

    Args:
        logits: scores, (B, H, W, K), or of another size, to be interpolated: those of all pixels
            are then never held at once.
        labels: class ids, (B, H, W), any integer type; pixels whose id is not 0 to K - 1, such as
            255, do not count.
        weight: weight of each class, (K,); the mean is then the weighted one.
        label_smoothing: share of the label that is spread evenly over all classes, 0 to 1
            (Szegedy et al. 2016, section 7); with class weights as torch does it.
        average: "valid", torch's rule and mmsegmentation's avg_non_ignore, divides by the labelled
            pixels; "all", mmsegmentation's default, by all of them.
        align_corners: how logits of another size are interpolated, see `ops.resize_bilinear`.

    Returns:
        A scalar.
    """
    pixels = Pixels.of(logits, labels, align_corners)
    total = total_cross_entropy(pixels, weight, label_smoothing)
    return mean(total, pixels, pixels.weights(weight), average)


def total_cross_entropy(
    pixels: Pixels,
    weight: jax.Array | None,
    label_smoothing: float = 0.0,
    share: jax.Array | float = 1.0,
) -> jax.Array:
    """The sum of the weighted cross entropies of all labelled pixels, of each a share of 0 to 1."""
    weights = share * pixels.weights(weight)
    if not label_smoothing:
        return pixels.cross_entropy(weights)
    # The mean over the classes of their weighted cross entropies.
    ones = jnp.ones(pixels.classes) if weight is None else jnp.asarray(weight)
    spread = ones.astype(weights.dtype) / pixels.classes
    others = label_smoothing * share * pixels.valid
    return pixels.cross_entropy((1 - label_smoothing) * weights, (others, spread))
