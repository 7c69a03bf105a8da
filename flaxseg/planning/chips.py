"""What the chips are that a training step may be planned for."""

from typing import NamedTuple


class Chip(NamedTuple):
    """A kind of chip.

    Attributes:
        memory: bytes that a program may use.
        flops: bfloat16 operations a second at its peak.
        clock: cycles a second.
        bandwidth: bytes a second to and from its memory.
        links: bytes a second that it can send to other chips of its slice, over all its links.
        dimensions: of the torus in which the chips of a slice are wired.
        slices: some that can be rented, for messages.
    """

    memory: int
    flops: float
    clock: float
    bandwidth: float
    links: float
    dimensions: int
    slices: tuple[str, ...]


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8")


def _chip(
    gib: float,
    tera_flops: float,
    units: tuple[int, int],
    gigabytes: float,
    gigabits: float,
    slices: tuple[str, ...],
) -> Chip:
    number, side = units
    dimensions = slices[0].count("x") + 1
    return Chip(
        int(gib * 2**30),
        tera_flops * 1e12,
        tera_flops * 1e12 / (2 * number * side**2),
        gigabytes * 1e9,
        gigabits / 8 * 1e9,
        dimensions,
        slices,
    )


CHIPS = {
    "v4": _chip(30.75, 275, (8, 128), 1228, 2400, _DEEP),
    "v5e": _chip(15.75, 197, (4, 128), 819, 1600, _FLAT),
    "v5p": _chip(95.74, 459, (8, 128), 2765, 4800, _DEEP),
    "v6e": _chip(31.25, 918, (4, 256), 1638, 3200, _FLAT),
}
"""By the name in front of a topology.

Operations and bandwidths are those of https://cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e.
Links are given there per chip in Gbit/s for one direction, or twice that in GB/s for both. The
clock follows from the number of matrix units and their sides: each of their cells multiplies and
adds once a cycle, which makes the peak (1.05, 1.5, 1.75 and 1.75 GHz). Memory is what libtpu 0.0.42
leaves to a program of the 32, 16, 95 and 32 GiB there, by its own errors.
"""
