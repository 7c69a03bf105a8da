"""Rebuilds the weights, images and labels of the golden data from their seeds.

The published networks were run with weights that depend on seed, key and shape alone, so a few
kilobytes of outputs stand for a whole checkpoint. Each tensor draws from its own generator.
"""

import hashlib
import math
from collections.abc import Mapping

import numpy as np

from flaxseg.model_dir import COUNTER

SEED = 1
ENERGY_LAYERS = ("query_conv", "key_conv", "ConvQuery", "ConvKey")

# Leading condition on a vector's key -> (mean, standard deviation); the first hit counts.
VECTORS = (
    (("gamma", "scale"), (0.5, 0.1)),
    (("bn3.weight",), (0.4, 0.1)),
    (("weight",), (1.0, 0.1)),
    (("",), (0.0, 0.1)),
)


def weights(shapes: Mapping[str, tuple[int, ...]], seed: int = SEED) -> dict[str, np.ndarray]:
    """Every tensor of a state dict, float32; the int64 counters are 0."""
    return {key: _tensor(key, shape, seed) for key, shape in shapes.items()}


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
    value = generator.standard_normal(shape) * np.sqrt(1.5 / math.prod(shape[1:]))
    return value * 0.1 if any(name in key for name in ENERGY_LAYERS) else value
