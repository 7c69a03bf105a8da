"""What the losses read off scores and labels, pixel by pixel."""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp

from flaxseg.ops.enlarged import Others, enlarged_cross_entropy, enlarged_surprise
from flaxseg.ops.resize import resize_bilinear

Average = Literal["valid", "all"]
"""Over which pixels a pixel loss is averaged: the labelled ones, or all, the ignored ones as 0."""


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Scores and labels side by side, of B images or of their pixels in a row.

    Attributes:
        scores: float32 or float64, (..., K) or at a lower resolution, (B, h, w, K).
        labels: class ids, (...) int32.
        align_corners: how scores of a lower resolution are interpolated, see `resize_bilinear`.
    """

    scores: jax.Array
    labels: jax.Array
    align_corners: bool

    @classmethod
    def of(cls, logits: jax.Array, labels: jax.Array, align_corners: bool = False) -> "Pixels":
        """Reads logits (..., K) of any float type and class ids (...) of any integer type.

        Logits (B, h, w, K) of another size than the labels are interpolated.
        """
        scores = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return cls(scores, labels.astype(jnp.int32), align_corners)

    @property
    def classes(self) -> int:
        """Number of them, K."""
        return self.scores.shape[-1]

    @property
    def enlarged(self) -> bool:
        """The scores have fewer pixels than the labels; where it can be, they are left so."""
        return self.scores.size // self.classes < self.labels.size

    @functools.cached_property
    def valid(self) -> jax.Array:
        """Whether the pixel is labelled with a class, (...) bool."""
        return (self.labels >= 0) & (self.labels < self.classes)

    @functools.cached_property
    def is_label(self) -> jax.Array:
        """Whether the pixel is labelled with the class, (..., K) bool."""
        # Comparing with an iota instead of gathering: the gradient of a gather is a scatter, which
        # is several times slower.
        return jnp.arange(self.classes) == self.labels[..., None]

    @functools.cached_property
    def logits(self) -> jax.Array:
        """Scores of every pixel, 0 at ignored ones, (..., K)."""
        scores = self.scores
        if scores.shape[:-1] != self.labels.shape:
            height, width = self.labels.shape[1:]
            scores = resize_bilinear(scores, (height, width), align_corners=self.align_corners)
        # Masked before any logarithm: a gradient of 0 times infinity would be nan.
        return jnp.where(self.valid[..., None], scores, 0)

    def surprise(self) -> jax.Array:
        """-log of the probability of the label, (...); of ignored pixels, log K."""
        log_sum = jax.nn.logsumexp(self.logits, axis=-1)
        return log_sum - self.of_label(self.logits)

    def hardness(self) -> jax.Array:
        """The same of the labelled pixels, to choose among them: without gradient, (...)."""
        if self.enlarged:
            corners = self.align_corners
            return enlarged_surprise(self.scores, self.labels, align_corners=corners)
        return jax.lax.stop_gradient(self.surprise())

    def cross_entropy(self, weights: jax.Array, others: Others = None) -> jax.Array:
        """The weighted sum of all surprises, a scalar.

        Args:
            weights: of each pixel, 0 at ignored ones, (...), without gradient.
            others: adds a second sum, of -log of the probabilities of all classes: its weights of
                the pixels (...), 0 at ignored ones, and of the classes (K,).
        """
        if self.enlarged:
            corners = self.align_corners
            given = self.scores, self.labels, weights, others
            return enlarged_cross_entropy(*given, align_corners=corners)
        total = jnp.sum(weights * self.surprise())
        if others is not None:
            of_pixels, of_classes = others
            log = jax.nn.log_softmax(self.logits, axis=-1)
            total -= jnp.sum(of_pixels * jnp.sum(log * of_classes, axis=-1))
        return total

    def probabilities(self) -> jax.Array:
        """The softmax of the scores, 0 at ignored pixels, (..., K)."""
        return jnp.where(self.valid[..., None], jax.nn.softmax(self.logits, axis=-1), 0)

    def of_label(self, values: jax.Array) -> jax.Array:
        """Of values (..., K) the one of the pixel's label, 0 at ignored pixels, (...)."""
        return jnp.sum(jnp.where(self.is_label, values, 0), axis=-1)

    def weights(self, class_weights: jax.Array | None) -> jax.Array:
        """The weight of every pixel's class, or 1, and 0 at ignored pixels, (...)."""
        dtype = self.scores.dtype
        if class_weights is None:
            return self.valid.astype(dtype)
        table = jnp.asarray(class_weights).astype(dtype)
        return jnp.where(self.valid, jnp.take(table, self.labels, mode="clip"), 0)


def ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """part / whole, and 0 where the whole is 0; so are its gradients."""
    return part / jnp.where(whole > 0, whole, 1)


def mean(total: jax.Array, pixels: Pixels, weights: jax.Array, average: Average) -> jax.Array:
    """The weighted mean of a loss over the pixels, a scalar.

    Args:
        total: the sum of the weighted losses of all pixels.
        pixels: the pixels.
        weights: by which the losses were multiplied, (...).
        average: "valid" divides by the sum of the weights, as torch; "all" counts the ignored
            pixels with the mean weight of the others, which is mmsegmentation's default.
    """
    result = ratio(total, jnp.sum(weights))
    if average == "all":
        result *= jnp.mean(pixels.valid.astype(result.dtype))
    return result
