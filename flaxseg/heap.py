"""The memory that programs on CPUs work in, kept from one call to the next."""

import ctypes
import sys

import jax

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of mallopt(3)."""

_NEVER, _NONE = -1, 0


def keep_memory() -> None:
    """Lets a process on CPUs hold on to the memory that it has freed.

    XLA asks for the temporary memory of a program at every call. The C library of Linux takes
    pieces of more than 32 MiB from the system and gives them back, and the system zeroes them page
    by page each time: 15 to 30 % of a training step. mallopt(3) tells it to keep them, which it
    does in the heap of the first thread alone; so programs run in the thread that calls them.

    Must come before JAX looks for devices. Does nothing where these are no CPUs, or without glibc.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if sys.platform == "linux" and jax.default_backend() == "cpu":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_TRIM_THRESHOLD, _NEVER)
            mallopt(_M_MMAP_MAX, _NONE)
