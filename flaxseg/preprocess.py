"""How pixel values become network input."""

import dataclasses
from typing import Any

import jax
from jax import numpy as jnp


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Normalisation of RGB images; a jit-friendly function of the images alone.

    Attributes:
        mean: per channel, in units of pixel / 255. The default is ImageNet's.
        std: likewise.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalises images (..., 3) with values from 0 to 255 to float32."""
        pixels = images.astype(jnp.float32) / 255
        return (pixels - jnp.asarray(self.mean, jnp.float32)) / jnp.asarray(self.std, jnp.float32)

    def to_json(self) -> dict[str, Any]:
        """The values as plain JSON."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Preprocess":
        """Rebuilds what `to_json` gave."""
        mean, std = (tuple(float(v) for v in values[name]) for name in ("mean", "std"))
        return cls(mean, std)  # pyright: ignore[reportArgumentType]
