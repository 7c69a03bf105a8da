"""The kinds of outputs that `flaxseg predict --write` chooses among."""

from typing import Literal

Kind = Literal["mask", "color", "overlay", "confidence", "probabilities", "coco"]

USUAL: tuple[Kind, ...] = ("mask", "color", "overlay")
"""Those that are written if none is named."""
