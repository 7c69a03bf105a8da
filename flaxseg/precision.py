"""The names of how exactly float32 is multiplied, for those who need not wait for JAX."""

from typing import Literal

Precision = Literal["default", "high", "highest"]
"""JAX's names: the fastest that the device has, one in between, and float32 itself."""
