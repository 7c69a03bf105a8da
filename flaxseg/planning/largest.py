"""The largest batch that fits the memory of a chip."""

import dataclasses
from collections.abc import Callable

from flaxseg.planning.memory import DoesNotFit
from flaxseg.planning.plan import Plan

MAX_TRIES = 6
"""Programs that a search compiles at most; the second or third guess is mostly right."""


@dataclasses.dataclass(frozen=True)
class Largest:
    """What a search found.

    Attributes:
        fits: the largest batch of each chip that was compiled and fits; 0 if none does.
        too_large: the smallest that was compiled and does not; None if all did.
        peaks: bytes that each batch of a chip needs, of those that fit.
    """

    fits: int
    too_large: int | None
    peaks: dict[int, int]

    def sentence(self, unit: int) -> str:
        """The result in words.

        Args:
            unit: images by which the batch of a chip can grow.
        """
        if not self.fits:
            return f"no batch fits: {self.too_large} a chip are too many"
        words = f"largest batch a chip: {self.fits} fit"
        if self.too_large is None:
            return f"{words}, larger ones were not tried"
        between = "" if self.too_large == self.fits + unit else "; between them was not tried"
        return f"{words}, {self.too_large} do not{between}"


def find_largest(
    plan: Callable[[int], Plan], unit: int, available: int, known: Plan | None = None
) -> Largest:
    """Searches for the largest batch that fits.

    Memory is nearly a straight line over the batch, so the two largest that fit tell the next
    guess; what XLA computes twice to save memory bends it, so each guess is compiled.

    Args:
        plan: plans a step with this many images a chip; raises `DoesNotFit`.
        unit: images by which the batch of a chip can grow.
        available: bytes that a program may use.
        known: a plan that was made before, and fits.
    """
    peaks = {known.batch_size // known.chips: known.memory.peak} if known else {}
    too_large: int | None = None
    for _ in range(MAX_TRIES):
        guess = _guess(peaks, too_large, unit, available)
        if guess is None:
            break
        try:
            peaks[guess] = plan(guess).memory.peak
        except DoesNotFit:
            too_large = guess
    return Largest(max(peaks, default=0), too_large, peaks)


def _guess(peaks: dict[int, int], too_large: int | None, unit: int, available: int) -> int | None:
    """The batch to compile next, in images a chip; None when the answer is known."""
    low = max(peaks, default=0)
    if too_large is not None and too_large - low <= unit:
        return None
    if len(peaks) < 2:
        guess = 2 * low or unit
    else:
        one, other = sorted(peaks)[-2:]
        slope = max((peaks[other] - peaks[one]) / (other - one), 1.0)
        guess = other + int((available - peaks[other]) / slope)
    # Between what fits and what does not: if the line says neither, the next one, so that the
    # answer has both sides.
    highest = 2**30 if too_large is None else too_large - unit
    return min(max(guess // unit * unit, low + unit), highest)
