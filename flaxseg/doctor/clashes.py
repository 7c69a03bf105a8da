"""What gets in JAX's way: other libraries on its GPUs, and variables of the environment."""

import os
from collections.abc import Iterator

from flaxseg.doctor.devices import has_gpu
from flaxseg.doctor.packages import GPU_TENSORFLOWS, cuda_of_jax, cuda_of_torch, installed
from flaxseg.doctor.section import Finding, Section

SHOWN = ("XLA_PYTHON_CLIENT_", "XLA_FLAGS", "JAX_", "FLAXSEG_", "CUDA_VISIBLE_DEVICES")
"""How variables begin that change what JAX or flaxseg do."""

SLOW = ("JAX_DISABLE_JIT", "JAX_DISABLE_MOST_OPTIMIZATIONS", "JAX_DEBUG_NANS")
"""Variables for finding faults, with which everything takes many times as long."""

_OFF = ("", "0", "false", "off", "no")


def examine_clashes() -> Section:
    """Variables that are set, and libraries that take the GPU from JAX."""
    variables = sorted(name for name in os.environ if name.startswith(SHOWN))
    lines = [f"{name}={os.environ[name]}" for name in variables] or ["no variable is set"]
    return Section("environment", lines, [*_variables(), *_libraries()])


def _variables() -> Iterator[Finding]:
    for name in SLOW:
        if os.environ.get(name, "").lower() not in _OFF:
            what = f"{name} is set: everything takes many times as long"
            yield Finding(what, f"unset {name}")
    if os.environ.get("LD_LIBRARY_PATH") and cuda_of_jax():
        if any("cuda" in part.lower() for part in os.environ["LD_LIBRARY_PATH"].split(":")):
            what = (
                "LD_LIBRARY_PATH names a CUDA of the system, which may take the place of the one "
                "that JAX's plugin brings along"
            )
            yield Finding(what, "unset LD_LIBRARY_PATH")


def _libraries() -> Iterator[Finding]:
    ours, theirs = cuda_of_jax(), cuda_of_torch()
    for name in GPU_TENSORFLOWS:
        version = installed(name)
        if version and (ours or has_gpu()):
            yield Finding(
                f"{name} {version} is installed: where something imports it beside JAX it takes "
                "the memory of all GPUs; flaxseg needs none of it",
                f"pip uninstall {name}, or pip install tensorflow-cpu in its place",
            )
    if ours and theirs and ours != theirs:
        yield Finding(
            f"torch {installed('torch')} is for CUDA {theirs}, JAX's plugin for CUDA {ours}: in "
            "one process the second to start may find libraries that do not fit",
            f"pip install 'jax[cuda{theirs}]', or torch for CUDA {ours} or for CPUs",
        )
