"""Asks the package index which platforms flaxseg can be installed on, without installing anything.

The packages are those that flaxseg needs on that platform, directly and through others, in the
versions of constraints.txt. A package that is published without any wheel, as source in plain
Python, is passed over: pip builds it anywhere.

    python benchmarks/installs.py [--pip-args="--index-url URL"]
"""

import argparse
import itertools
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
SOURCE_ONLY = ("promise",)

_MISSING = re.compile(r"No matching distribution found for (\S+?)==")


class Platform(NamedTuple):
    """A kind of computer.

    Attributes:
        name: for the table.
        tag: newest platform tag of its wheels.
        markers: what environment markers of requirements see.
    """

    name: str
    tag: str
    markers: dict[str, str]


def _platform(name: str, tag: str, sys_platform: str, system: str, machine: str) -> Platform:
    os_name = "nt" if sys_platform == "win32" else "posix"
    markers = {
        "sys_platform": sys_platform,
        "platform_system": system,
        "platform_machine": machine,
        "os_name": os_name,
    }
    return Platform(name, tag, markers)


PLATFORMS = (
    _platform("Windows x86-64", "win_amd64", "win32", "Windows", "AMD64"),
    _platform("macOS Arm", "macosx_14_0_arm64", "darwin", "Darwin", "arm64"),
    _platform("macOS Intel", "macosx_14_0_x86_64", "darwin", "Darwin", "x86_64"),
)


def needed(markers: dict[str, str]) -> set[str]:
    """Names of all packages that flaxseg needs where markers have these values.

    What a package needs in turn is taken from the one that is installed here.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [(Requirement(text), "") for text in project["dependencies"]]
    names, seen = set(), set()
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or requirement.marker.evaluate(
            {**markers, "extra": extra}
        )
        if not wanted:
            continue
        names.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += [(Requirement(text), extra) for text in _requires(name)]
    return names


def _requires(name: str) -> list[str]:
    try:
        return distribution(name).requires or []
    except ModuleNotFoundError:  # needed on other platforms alone
        return []


def pinned(markers: dict[str, str]) -> dict[str, str]:
    """The versions of constraints.txt by name, where markers have these values."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    texts = (line for line in lines if line and not line.startswith("#"))
    requirements = (Requirement(text) for text in texts)
    return {
        canonicalize_name(requirement.name): str(requirement.specifier)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(markers)
    }


def missing(platform: Platform, python: str, pip_args: list[str]) -> Iterator[str]:
    """The packages without a wheel, in the order in which pip finds out.

    Raises:
        RuntimeError: pip ends for another reason.
    """
    markers = {
        **platform.markers,
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    versions = pinned(markers)
    names = sorted(needed(markers) - set(SOURCE_ONLY))
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", *pip_args]
    command += ["--ignore-installed", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--platform", platform.tag, "--python-version", python]
    with tempfile.TemporaryDirectory() as folder:
        while names:
            texts = [name + versions.get(name, "") for name in names]
            ended = subprocess.run(
                [*command, "--target", folder, *texts], capture_output=True, text=True
            )
            if ended.returncode == 0:
                return
            found = _MISSING.search(ended.stderr)
            if found is None:
                raise RuntimeError(ended.stderr)
            name = canonicalize_name(found[1])
            yield name + versions.get(name, "")
            names.remove(name)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pip-args", default="", help="further arguments of pip install")
    pip_args = shlex.split(parser.parse_args().pip_args)
    print("| platform | Python | what has no wheel |\n|---|---|---|")
    for platform, python in itertools.product(PLATFORMS, PYTHONS):
        lacking = ", ".join(missing(platform, python, pip_args)) or "everything resolves"
        print(f"| {platform.name} | {python} | {lacking} |", flush=True)


if __name__ == "__main__":
    main()
