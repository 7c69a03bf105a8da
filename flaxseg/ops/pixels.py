"""What the losses read off scores and labels, pixel by pixel."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

Average = Literal["valid", "all"]
"""Over which pixels a pixel loss is averaged: the labelled ones, or all, the ignored ones as 0."""


class Pixels(NamedTuple):
    """Scores and labels side by side, of B images or of their pixels in a row.

    Attributes:
        logits: scores in float32 or float64, 0 at ignored pixels, (..., K).
        is_label: whether the pixel is labelled with the class, (..., K) bool.
        valid: whether the pixel has a label, (...) bool.
    """

    logits: jax.Array
    is_label: jax.Array
    valid: jax.Array

    @classmethod
    def of(cls, logits: jax.Array, labels: jax.Array) -> "Pixels":
        """Reads logits (..., K) of any float type and class ids (...) of any integer type."""
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        # Comparing with an iota instead of gathering: the gradient of a gather is a scatter, which
        # is several times slower.
        is_label = jnp.arange(logits.shape[-1]) == labels[..., None].astype(jnp.int32)
        valid = jnp.any(is_label, axis=-1)
        # Masked before any logarithm: a gradient of 0 times infinity would be nan.
        return cls(jnp.where(valid[..., None], logits, 0), is_label, valid)

    def surprise(self) -> jax.Array:
        """-log of the probability of the label, (...); of ignored pixels, log K."""
        log_sum = jax.nn.logsumexp(self.logits, axis=-1)
        return log_sum - self.of_label(self.logits)

    def probabilities(self) -> jax.Array:
        """The softmax of the scores, 0 at ignored pixels, (..., K)."""
        return jnp.where(self.valid[..., None], jax.nn.softmax(self.logits, axis=-1), 0)

    def of_label(self, values: jax.Array) -> jax.Array:
        """Of values (..., K) or (K,) the one of the pixel's label, 0 at ignored pixels, (...)."""
        return jnp.sum(jnp.where(self.is_label, values, 0), axis=-1)

    def weights(self, class_weights: jax.Array | None) -> jax.Array:
        """The weight of every pixel's class, or 1, and 0 at ignored pixels, (...)."""
        dtype = self.logits.dtype
        if class_weights is None:
            return self.valid.astype(dtype)
        return self.of_label(jnp.asarray(class_weights).astype(dtype))


def ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """part / whole, and 0 where the whole is 0; so are its gradients."""
    return part / jnp.where(whole > 0, whole, 1)


def mean(losses: jax.Array, pixels: Pixels, weights: jax.Array, average: Average) -> jax.Array:
    """The weighted mean of a loss over the pixels, a scalar.

    Args:
        losses: the weighted loss of every pixel, 0 at ignored ones, (...).
        pixels: the pixels.
        weights: by which the losses were multiplied, (...).
        average: "valid" divides by the sum of the weights, as torch; "all" counts the ignored
            pixels with the mean weight of the others, which is mmsegmentation's default.
    """
    result = ratio(jnp.sum(losses), jnp.sum(weights))
    if average == "all":
        result *= jnp.mean(pixels.valid.astype(result.dtype))
    return result
