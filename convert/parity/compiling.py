"""What XLA is told about compiling, as far as the installed jaxlib knows it.

XLA ends the process at a flag that it does not know, and refuses to compile with such an option.
"""

import re
from collections.abc import Mapping
from importlib.metadata import version

GONE = {"xla_cpu_use_fusion_emitters": (0, 11, 1)}
"""Options that jaxlib once had -> the first release without them."""


def known_options(options: Mapping[str, bool | int]) -> dict[str, bool | int]:
    """Those of the options that the installed jaxlib knows, for `compiler_options`."""
    installed = tuple(map(int, re.findall(r"\d+", version("jaxlib"))[:3]))
    return {
        name: value for name, value in options.items() if name not in GONE or installed < GONE[name]
    }


def xla_flags(options: Mapping[str, bool | int]) -> str:
    """The same as words of the environment variable XLA_FLAGS."""
    return " ".join(
        f"--{name}={str(value).lower()}" for name, value in known_options(options).items()
    )


FAST = known_options(
    {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
    }
)
"""Fast compilation instead of fast code."""
