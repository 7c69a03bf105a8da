"""Installed packages: versions, and what they ask of each other."""

import importlib.metadata
import platform
import re
from collections.abc import Iterator

from packaging.requirements import Requirement

from flaxseg.doctor.section import Finding, Section

MAIN = ("flaxseg", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
CUDA_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")
GPU_TENSORFLOWS = ("tensorflow", "tensorflow-gpu")
"""Distributions of TensorFlow that take hold of GPUs."""

OTHERS = ("torch", *GPU_TENSORFLOWS, "tensorflow-cpu", *CUDA_PLUGINS, "libtpu")
"""Shown where they are installed."""


def installed(name: str) -> str | None:
    """Version of an installed distribution; None: it is not."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def examine_packages() -> Section:
    """Versions, and packages that are missing or of a version that does not fit."""
    versions = {name: installed(name) for name in (*MAIN, *OTHERS)}
    shown = {name: v for name, v in versions.items() if v or name in MAIN}
    width = max(map(len, shown))
    lines = [f"{'python':{width}}  {platform.python_version()}, {platform.platform()}"]
    lines += [f"{name:{width}}  {version or 'not installed'}" for name, version in shown.items()]
    findings = [*_unmet("flaxseg", extras=True), *_unmet("jax", extras=False), *_other_plugins()]
    if versions["flaxseg"] is None:
        here = "flaxseg runs from its folder without being installed: what it needs is not known"
        findings.insert(0, Finding(here, "pip install -c constraints.txt -e ."))
    return Section("versions", lines, findings)


def _unmet(name: str, *, extras: bool) -> Iterator[Finding]:
    """What an installed distribution asks for and does not find.

    Args:
        name: of the distribution.
        extras: what its extras ask for counts, too, where it is installed.
    """
    if installed(name) is None:
        return
    told = set()
    for requirement in map(Requirement, importlib.metadata.requires(name) or ()):
        marker = requirement.marker
        needed = marker is None or marker.evaluate({"extra": ""})
        found = installed(requirement.name)
        if requirement.name in told or not (needed or (extras and found)):
            continue
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            told.add(requirement.name)
            yield Finding(
                f"{requirement.name} is {found or 'not installed'}, {name} needs "
                f"{requirement.specifier or 'it'}",
                f"pip install '{requirement.name}{requirement.specifier}'",
            )


def _other_plugins() -> Iterator[Finding]:
    """JAX's CUDA plugins that were built for another jaxlib."""
    jaxlib = installed("jaxlib")
    for name in CUDA_PLUGINS:
        found = installed(name)
        if found and jaxlib and found != jaxlib:
            extra = name.removeprefix("jax-").removesuffix("-plugin")
            yield Finding(
                f"{name} is {found}, jaxlib {jaxlib}: they must be the same",
                f"pip install 'jax[{extra}]=={jaxlib}'",
            )


def cuda_of_jax() -> int | None:
    """Major version of CUDA that JAX's plugin is for; None without one."""
    for name in CUDA_PLUGINS:
        if installed(name):
            return int(re.findall(r"\d+", name)[0])
    return None


def cuda_of_torch() -> int | None:
    """Major version of CUDA that PyTorch brings along; None without one."""
    version = installed("torch")
    if version is None:
        return None
    if tagged := re.search(r"\+cu(\d+)\d$", version):
        return int(tagged[1])
    for text in importlib.metadata.requires("torch") or ():
        # nvidia-cuda-runtime-cu12==12.8.90 up to CUDA 12, nvidia-cuda-runtime==13.0.96 since
        if found := re.match(r"nvidia-cuda-runtime(?:-cu\d+)?\s*[=~><]=?\s*(\d+)\.", text):
            return int(found[1])
    return None
