"""What is wrong with files: found one by one, told of together."""

import concurrent.futures
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from flaxseg.errors import DataError

_SHOWN = 3

Item = TypeVar("Item")
Result = TypeVar("Result")


class BadSample(NamedTuple):
    """A file that cannot be used.

    Attributes:
        name: the image below the data folder, or the label map that has no image.
        reason: what is wrong with it and how to mend it.
        values: label values that are no class, each with its number of pixels.
    """

    name: str
    reason: str
    values: tuple[tuple[int, int], ...] = ()


def gather(
    function: Callable[[Item], Result], items: Sequence[Item], kind: str, num_threads: int = 4
) -> list[Result]:
    """Maps a function that raises `DataError` over items, in threads.

    Args:
        function: what to do with each item.
        items: the items.
        kind: what the items are, in the plural, for the message.
        num_threads: number of items in work at a time.

    Returns:
        The results in order.

    Raises:
        DataError: at least one call raised it; the message has the first few and their number.
    """

    def attempt(item: Item) -> Result | DataError:
        try:
            return function(item)
        except DataError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        outcomes = list(pool.map(attempt, items))
    problems = [str(outcome) for outcome in outcomes if isinstance(outcome, DataError)]
    raise_problems(problems, f"of {len(items)} {kind} cannot be used")
    return [outcome for outcome in outcomes if not isinstance(outcome, DataError)]


def raise_problems(problems: Iterable[str], summary: str) -> None:
    """Raises one `DataError` with the first few problems and their number, if there are any."""
    problems = list(problems)
    if not problems:
        return
    more = len(problems) - _SHOWN
    tail = f" | and {more} more" if more > 0 else ""
    raise DataError(f"{len(problems)} {summary}: " + " | ".join(problems[:_SHOWN]) + tail)
