"""A program behind the face of a network: normalised images in, logits out."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp

from flaxseg import models
from flaxseg.errors import ConfigError
from flaxseg.models.blocks import AnySize, Network, Output
from flaxseg.preprocess import Preprocess

Size = tuple[int, int]

Program = Callable[[jax.Array], jax.Array]
"""From images (B, H, W, 3) to logits (B, H, W, K) or labels (B, H, W); can be traced."""


@dataclasses.dataclass(frozen=True)
class ExportedConfig(AnySize):
    """Which images a program takes.

    Attributes:
        made_of: configuration of the network.
        size: the only height and width that it takes; None: those of the network.
        divisor: of height and width, where they are free.
    """

    made_of: models.Config
    size: Size | None
    divisor: int

    @property
    def network(self) -> models.Config:
        """See `AnySize`."""
        return self.made_of

    @property
    def num_classes(self) -> int:
        """Classes that it tells apart."""
        return self.made_of.num_classes

    @property
    def fixed_size(self) -> Size | None:
        """See `AnySize`."""
        return self.size

    @property
    def size_divisor(self) -> int:
        """See `AnySize`."""
        return 1 if self.size else self.divisor

    @property
    def square(self) -> bool:
        """See `AnySize`."""
        return self.made_of.square

    def check_size(self, size: Size) -> None:
        """See `AnySize`."""
        if self.size is not None and size != self.size:
            raise ConfigError(
                f"images of {size[0]}x{size[1]} pixels do not fit the exported program, which was "
                f"made for {self.size[0]}x{self.size[1]}: resize them, or export it for their size"
            )
        if self.size is None:
            super().check_size(size)
        self.made_of.check_size(size)


class ExportedNetwork(Network):
    """A program that is called as the network is that it was made of.

    Attributes:
        config: which images it takes.
        labels_only: it gives labels, so that its logits are 1 for the class of a pixel and 0 for
            all others: enough to choose a class, and to vote, but nothing to be sure by.
    """

    def __init__(
        self,
        config: ExportedConfig,
        program: Program,
        *,
        takes_bytes: Preprocess | None = None,
        labels_only: bool = False,
    ):
        """Takes a program.

        Args:
            config: which images it takes.
            program: what is called.
            takes_bytes: the normalisation that is part of the program, which takes uint8; None:
                it takes normalised float32.
            labels_only: it gives labels in place of logits.
        """
        self.config = config
        self.labels_only = labels_only
        self._program = program
        self._takes_bytes = takes_bytes

    def __call__(
        self,
        images: jax.Array,
        *,
        resize: bool = True,
        aux: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> Output:
        """Segments images, (B, H, W, 3), normalised.

        Args:
            images: of a size that the program takes.
            resize: changes nothing, logits have the size that the network gives them by default.
            aux: changes nothing, there are no auxiliary heads.
            rngs: changes nothing.

        Raises:
            ConfigError: images of a size that does not fit.
        """
        del resize, aux, rngs
        self.config.check_size((images.shape[1], images.shape[2]))
        images = images.astype(jnp.float32)
        if self._takes_bytes is not None:
            images = self._takes_bytes.inverse(images)
        said = self._program(images)
        if self.labels_only:
            said = jax.nn.one_hot(said, self.config.num_classes, dtype=jnp.float32)
        return Output(said)


def require_logits(model: Any, what: str) -> None:
    """Raises a `ConfigError` if a model gives labels alone.

    Args:
        model: any network.
        what: needs its logits, such as a flag.
    """
    if getattr(model, "labels_only", False):
        raise ConfigError(
            f"{what} needs logits, and this exported program gives labels alone: leave it out, or "
            "export the model without --with argmax"
        )
