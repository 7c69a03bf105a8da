"""What the values of settings must be, and the words for it."""

import math
from collections.abc import Callable
from typing import Any

Limit = tuple[Callable[[Any], bool], str]
"""Tells whether a value fits, and what fits, as in 'it must be ...'."""


def at_least(low: float) -> Limit:
    """Finite and not below `low`."""
    return lambda value: low <= value < math.inf, f"at least {low}"


POSITIVE: Limit = (lambda value: 0 < value < math.inf, "above 0")
PROBABILITY: Limit = (lambda value: 0 <= value <= 1, "from 0 to 1")
SIZE: Limit = (lambda value: min(value) >= 1, "at least 1 pixel high and wide")
