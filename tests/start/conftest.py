"""An empty environment with the built wheel, in which README's lines are typed."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from reading import ROOT, blocks, commands

Typed = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def start_lines() -> list[str]:
    """What README's Start tells to type: how to install, and how to get a first picture."""
    text = (ROOT / "README.md").read_text().partition("\n## Start\n")[2]
    return commands(blocks(text)[0])[:2]


@pytest.fixture(scope="session")
def typed(start_lines, tmp_path_factory) -> Typed:
    """Runs a line in a folder, as a new user who has installed the wheel and nothing else.

    The home is empty, so that nothing is found that an earlier line has not left there.
    """
    folder = tmp_path_factory.mktemp("new_user")
    place, home = folder / "environment", folder / "home"
    home.mkdir()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist"]
    subprocess.run(build, cwd=ROOT, check=True)
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    extras = re.fullmatch(r"pip install -c constraints\.txt -e '\.(\[\w+\])'", start_lines[0])
    assert extras, f"README installs in another way: {start_lines[0]}"
    pip = [place / "bin/python", "-m", "pip", "install", "--quiet", "-c", "constraints.txt"]
    subprocess.run([*pip, f"{wheel}{extras[1]}"], cwd=ROOT, check=True)
    given = {
        "PATH": f"{place / 'bin'}:{os.defpath}",
        "HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",  # the server in the hub's place knows git's way alone
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }

    def run(line: str, where: Path, **more: str) -> subprocess.CompletedProcess:
        words = shlex.split(line)
        words[0] = str(place / "bin" / words[0])
        return subprocess.run(
            words, cwd=where, env=given | more, capture_output=True, text=True, timeout=1800
        )

    assert run("python -c 'import torch'", folder).returncode, "PyTorch came along"
    return run
