"""The largest batch that fits the memory of a chip."""

import dataclasses
from collections.abc import Callable

from flaxseg.planning.memory import DoesNotFit

MAX_TRIES = 7
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
    peak_of: Callable[[int], int],
    unit: int,
    available: int,
    first: int | None = None,
    most: int | None = None,
) -> Largest:
    """Searches for the largest batch that fits.

    Memory is nearly a straight line over the batch, so two batches tell the next guess, those that
    do not fit among them, as the compiler says what they ask for. What XLA computes twice to save
    memory bends the line, so each guess is compiled.

    Args:
        peak_of: compiles a step with this many images a chip, and gives the bytes that it needs;
            raises `DoesNotFit`.
        unit: images by which the batch of a chip can grow.
        available: bytes that a program may use.
        first: the batch of a chip to begin with.
        most: the largest one that makes sense, a multiple of `unit`. None: any does.
    """
    peaks: dict[int, int] = {}
    refused: dict[int, float | None] = {}
    guess = first or unit
    for _ in range(MAX_TRIES):
        try:
            peaks[guess] = peak_of(guess)
        except DoesNotFit as error:
            refused[guess] = error.asked
        following = _guess(peaks, refused, unit, available)
        if following is None or most in peaks:
            break
        guess = min(following, most or following)
    return Largest(max(peaks, default=0), min(refused, default=None), peaks)


def _guess(
    peaks: dict[int, int], refused: dict[int, float | None], unit: int, available: int
) -> int | None:
    """The batch to compile next, in images a chip; None when the answer is known."""
    low, high = max(peaks, default=0), min(refused, default=None)
    if high is None:
        if len(peaks) < 2:
            return 2 * low
        before = sorted(peaks)[-2]
        guess = _crossing(before, peaks[before], low, peaks[low], available)
        return max(guess // unit * unit, low + unit)
    if high - low <= unit:
        return None
    asked = refused[high]
    guess = (low + high) // 2
    if asked is not None:
        guess = _crossing(low, peaks.get(low, 0), high, asked, available)
    # If the line says neither, the next one, so that the answer has both sides.
    return min(max(guess // unit * unit, low + unit), high - unit)


def _crossing(one: int, its: float, other: int, theirs: float, available: int) -> int:
    """Where the line through two batches and their bytes reaches what is available."""
    slope = max((theirs - its) / (other - one), 1.0)
    return one + int((available - its) / slope)
