"""How pixel values become network input."""

import dataclasses
import math
from typing import Any, Literal, get_args

import jax
import numpy as np
from jax import numpy as jnp

from flaxseg.errors import ConfigError

Channels = Literal["rgb", "bgr"]
"""Orders in which a network takes red, green and blue."""


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Normalisation of RGB images; a jit-friendly function of the images alone.

    Attributes:
        mean: of red, green and blue in this order, whatever `channels` says, in units of
            pixel / 255. The default is ImageNet's.
        std: likewise.
        channels: the order in which the network takes the channels. "bgr" turns them round after
            the normalisation.

    Raises:
        ConfigError: a value that does not fit.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    channels: Channels = "rgb"

    def __post_init__(self):
        if len(self.mean) != 3 or not all(0 <= value <= 1 for value in self.mean):
            raise ConfigError(
                f"mean is {_numbers(self.mean)}, it must be three numbers from 0 to 1, as parts of "
                "the brightest value"
            )
        if len(self.std) != 3 or not all(0 < value < math.inf for value in self.std):
            raise ConfigError(f"std is {_numbers(self.std)}, it must be three numbers above 0")
        if self.channels not in get_args(Channels):
            known = " or ".join(get_args(Channels))
            raise ConfigError(f"channels is {self.channels!r}, it must be {known}")

    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalises RGB images (..., 3) with values from 0 to 255 to float32."""
        pixels = images.astype(jnp.float32) / 255
        pixels = pixels - jnp.asarray(self.mean, jnp.float32)
        pixels = pixels / jnp.asarray(self.std, jnp.float32)
        return pixels if self.channels == "rgb" else pixels[..., ::-1]

    def inverse(self, images: jax.Array) -> jax.Array:
        """The RGB pixels (..., 3), uint8, that normalised images were made of, rounded to bytes."""
        pixels = images if self.channels == "rgb" else images[..., ::-1]
        pixels = pixels * jnp.asarray(self.std, jnp.float32) + jnp.asarray(self.mean, jnp.float32)
        return jnp.clip(jnp.round(255 * pixels), 0, 255).astype(jnp.uint8)

    def __str__(self) -> str:
        return f"{self.channels}, mean {_numbers(self.mean)}, std {_numbers(self.std)}"

    def is_close(self, other: "Preprocess") -> bool:
        """Whether another one differs by no more than its numbers were rounded."""
        return (
            self.channels == other.channels
            and np.allclose(self.mean, other.mean, rtol=0, atol=1e-3)
            and np.allclose(self.std, other.std, rtol=1e-2, atol=0)
        )

    def to_json(self) -> dict[str, Any]:
        """The values as plain JSON."""
        return {"mean": list(self.mean), "std": list(self.std), "channels": self.channels}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Preprocess":
        """Rebuilds what `to_json` gave; values without an order of channels are those of RGB.

        Raises:
            ConfigError: a value that does not fit.
        """
        mean, std = (tuple(float(v) for v in values[name]) for name in ("mean", "std"))
        return cls(mean, std, values.get("channels", "rgb"))  # pyright: ignore[reportArgumentType]


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
