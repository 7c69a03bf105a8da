"""What is read off the logits of each pixel: its class, how sure that is, all probabilities."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from flaxseg.inference.windows import Size

Detail = Literal["label", "confidence", "probabilities"]
"""How much is to be read off; each includes those before it."""

Planes = Callable[[], Iterable[np.ndarray]]
"""() -> the logits of one class after the other, (H, W) each; the same ones at every call."""


class Pixels(NamedTuple):
    """What a network says about the pixels of a photo.

    Attributes:
        label: class with the highest logit, (H, W) uint8.
        confidence: its probability, (H, W) float32, 0 to 1; None if it was not asked for.
        probabilities: of all classes, (H, W, K) float16; None if they were not asked for.
    """

    label: np.ndarray
    confidence: np.ndarray | None = None
    probabilities: np.ndarray | None = None


def read_planes(
    planes: Planes, size: Size, detail: Detail = "label", temperature: float = 1.0
) -> Pixels:
    """Reads logits one class after the other: all at once would fill the memory for a large photo.

    Args:
        planes: the logits; they are gone through twice for probabilities.
        size: height and width of each.
        detail: how much is read off.
        temperature: what the logits are divided by before they become probabilities.
    """
    label = np.zeros(size, np.uint8)
    highest = np.full(size, -np.inf, np.float32)
    total = None if detail == "label" else np.zeros(size, np.float32)
    count = 0
    for count, plane in enumerate(planes(), 1):
        higher = plane > highest
        label[higher] = count - 1
        if total is not None:
            # Sum of exp(logit - the highest so far): one power serves both cases.
            power = np.exp(-np.abs(plane - highest) / temperature)
            total = np.where(higher, total * power + 1, total + power)
        np.maximum(highest, plane, out=highest)
    if total is None:
        return Pixels(label)
    confidence = 1 / total
    if detail == "confidence":
        return Pixels(label, confidence)
    probabilities = np.empty((*size, count), np.float16)
    for index, plane in enumerate(planes()):
        probabilities[..., index] = np.exp((plane - highest) / temperature) * confidence
    return Pixels(label, confidence, probabilities)


def read_probabilities(planes: Planes, size: Size, detail: Detail = "label") -> Pixels:
    """Reads probabilities one class after the other: the class with the highest one, and itself.

    Args:
        planes: the probabilities; they are gone through once.
        size: height and width of each.
        detail: how much is kept.
    """
    label = np.zeros(size, np.uint8)
    highest = np.full(size, -np.inf, np.float32)
    kept = []
    for index, plane in enumerate(planes()):
        label[plane > highest] = index
        np.maximum(highest, plane, out=highest)
        if detail == "probabilities":
            kept.append(plane.astype(np.float16))
    if detail == "label":
        return Pixels(label)
    return Pixels(label, highest, np.stack(kept, -1) if kept else None)


def grey(confidence: np.ndarray) -> np.ndarray:
    """Confidences as bytes, 255 for 1; those that are not numbers are 0."""
    return np.round(255 * np.nan_to_num(confidence)).astype(np.uint8)


def label_and_confidence(logits: jax.Array, temperature: float = 1.0) -> jax.Array:
    """Logits (..., K) -> (..., 2) float32, see `split`; to be called inside `jax.jit`."""
    highest = logits.max(-1, keepdims=True)
    confidence = 1 / jnp.exp((logits - highest) / temperature).sum(-1)
    return jnp.stack([jnp.argmax(logits, -1), confidence], -1).astype(jnp.float32)


def split(pairs: np.ndarray) -> Pixels:
    """What `label_and_confidence` has made on a device, (H, W, 2)."""
    return Pixels(pairs[..., 0].astype(np.uint8), pairs[..., 1].copy())


def planes_of(logits: np.ndarray, size: Size) -> Iterator[np.ndarray]:
    """(H, W, K) to one class after the other, interpolated to a size if theirs is another one."""
    for index in range(logits.shape[-1]):
        plane = np.ascontiguousarray(logits[..., index])
        if plane.shape != size:
            plane = cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR)
        yield plane
