"""How time and memory of a network grow with the pixels of an image and with the batch."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from speed_machine import total_memory

from flaxseg import models
from flaxseg.bench import PROGRAMS, Mode, random_batch, take_turns

SIDES = (256, 362, 512, 724, 1024, 1448, 2048)
"""Height and width of one image, each with twice the pixels of the one before."""

BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Images of the smallest of these sizes."""

DIVISOR = 32
"""Heights and widths are rounded down to multiples of it, which every network takes."""

OF_MEMORY = 0.7
"""Of the machine's memory a program may need."""


class Limits(NamedTuple):
    """Where a series ends.

    Attributes:
        seconds: that a call may be expected to take.
        rounds: timed calls of each point.
    """

    seconds: float
    rounds: int


Point = dict[str, Any]


def scaling(config: models.Config, mode: Mode, dtype: str, limits: Limits) -> dict[str, Any]:
    """Two series of points, and the powers with which they grow.

    Args:
        config: of the network.
        mode: "infer" or "train".
        dtype: of the computation.
        limits: where the series end.
    """
    sides = [side // DIVISOR * DIVISOR for side in SIDES]
    shapes = {
        "pixels": [(1, side) for side in sides],
        "batch": [(batch, sides[0]) for batch in BATCHES],
    }
    found: dict[str, Any] = {}
    for series, those in shapes.items():
        points = list(_points(config, mode, dtype, those, limits))
        pixels = [point["batch"] * point["size"][0] ** 2 for point in points]
        exponents = {
            key: exponent(pixels, [p[key] for p in points]) for key in ("min", "temporary")
        }
        found[series] = {"points": points, "exponents": exponents}
    return found


def _points(
    config: models.Config,
    mode: Mode,
    dtype: str,
    shapes: Sequence[tuple[int, int]],
    limits: Limits,
) -> Iterator[Point]:
    before = None
    for batch, side in shapes:
        if before is not None:
            growth = batch * side**2 / (before["batch"] * before["size"][0] ** 2)
            if growth * before["min"] > limits.seconds:
                return
        fitting = config.with_image_size((side, side))
        model = models.fresh_model(fitting, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
        program = PROGRAMS[mode](model, random_batch(fitting, batch, (side, side)))
        costs = program.costs
        if total_memory() and (costs.memory or 0) > OF_MEMORY * total_memory():
            return
        samples = take_turns({mode: program}, limits.rounds)[mode]
        before = {
            "batch": batch,
            "size": [side, side],
            "min": samples.min,
            "median": samples.median,
        }
        before |= {"temporary": costs.temporary, "compile_seconds": costs.compile_seconds}
        yield before


def exponent(amounts: Sequence[float], found: Sequence[float | None]) -> float | None:
    """The power of the amount with which something grows, as fitted to the logarithms of both.

    None where fewer than three points are known.
    """
    pairs = [(x, y) for x, y in zip(amounts, found, strict=True) if y]
    if len(pairs) < 3:
        return None
    x, y = np.log(pairs).T
    return float(np.polyfit(x, y, 1)[0])
