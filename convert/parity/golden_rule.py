"""Rebuilds the weights, images and labels of the golden data from their seeds.

The published networks were run with weights that depend on seed, key and shape alone, so a few
kilobytes of outputs stand for a whole checkpoint. Each tensor draws from its own generator.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flaxseg.model_dir import COUNTER

SEED = 1
ENERGY_LAYERS = ("query_conv", "key_conv", "ConvQuery", "ConvKey")

POSITIONS = ("pos_embed", "position_embed", "cls_token")

# Leading condition on a vector's key -> (mean, standard deviation); the first hit counts.
VECTORS = (
    (("gamma", "scale"), (0.5, 0.1)),
    (("bn3.weight",), (0.4, 0.1)),
    (("weight",), (1.0, 0.1)),
    (("",), (0.0, 0.1)),
)


class Keys(NamedTuple):
    """A published network's state dict without its values.

    Attributes:
        shapes: key -> shape, in its order.
        twins: key -> the first key of the same tensor, for those that have two names.
    """

    shapes: dict[str, tuple[int, ...]]
    twins: dict[str, str]


def weights(keys: Keys, seed: int = SEED) -> dict[str, np.ndarray]:
    """Every tensor of a state dict, float32; the int64 counters are 0."""
    return {k: _tensor(keys.twins.get(k, k), shape, seed) for k, shape in keys.shapes.items()}


def shrink(
    state: Mapping[str, np.ndarray], factor: float, prefix: str, also: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Scales norms and biases under a prefix down, until the epsilon of every norm shows.

    Args:
        state: key -> array.
        factor: near 0.003, it brings the variance before a LayerNorm to 1e-5.
        prefix: of the keys that are scaled.
        also: parts of further keys to scale.
    """

    def scaled(key: str, array: np.ndarray) -> bool:
        vector = array.ndim <= 1 and not key.endswith((COUNTER, "running_mean", "running_var"))
        return key.startswith(prefix) and (vector or any(part in key for part in also))

    return {k: a * np.float32(factor) if scaled(k, a) else a for k, a in state.items()}


def image(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """A standard normal image batch, (B, 3, H, W), float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def labels(seed: int, num_classes: int, shape: tuple[int, ...]) -> np.ndarray:
    """Label maps, (B, H, W) int64, one pixel in twenty ignored (255)."""
    generator = np.random.default_rng(seed + 1000)
    classes = generator.integers(0, num_classes, size=shape)
    return np.where(generator.random(shape) < 0.05, 255, classes)


def _tensor(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    if key.endswith(COUNTER):
        return np.zeros(shape, np.int64)
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return np.asarray(_draw(key, shape, generator), np.float32).reshape(shape)


def _draw(key: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray | float:
    if key.endswith("running_var"):
        return generator.uniform(0.0, 1.0, shape) + 0.5
    if key.endswith("running_mean"):
        return 0.1 * generator.standard_normal(shape)
    if len(shape) < 2:
        mean, std = next(v for endings, v in VECTORS if key.endswith(endings))
        return mean + std * generator.standard_normal(shape)
    if any(name in key for name in POSITIONS):
        return 0.2 * generator.standard_normal(shape)
    value = generator.standard_normal(shape) * np.sqrt(1.5 / math.prod(shape[1:]))
    return value * 0.1 if any(name in key for name in ENERGY_LAYERS) else value
