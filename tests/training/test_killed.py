"""Runs in processes of their own, which are killed, and in which torch cannot be imported."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from flaxseg.training import fit
from flaxseg.training.config import flag, show

ROOT = Path(__file__).parents[2]

# At a chosen place the process signals itself: no test has to guess how fast it is.
PROGRAM = """
import os, runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"{name} is not installed here")

sys.meta_path.insert(0, Missing())
place, number = sys.argv[1], int(sys.argv[2])

from flaxseg.training import loop

def strike_at(owner, name, is_time):
    original = getattr(owner, name)
    def method(*args, **kwargs):
        if is_time(*args):
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)
    setattr(owner, name, method)

if place.startswith("step"):
    # The step has been started, the one before it may still be on its way to the disk.
    strike_at(loop.Monitor, "push", lambda monitor, step, *_: step == int(place[4:]))
elif place == "best":
    strike_at(loop.native, "save", lambda *_: True)

sys.argv = sys.argv[3:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    # Libraries look whether it is there, so it cannot be made to look absent in the same way.
    assert "tensorflow" not in sys.modules
"""


@pytest.fixture
def process(cache_dir):
    """Runs train.py with a config, and signals it at a place such as "step3"."""

    def run(config, place="nowhere", number=signal.SIGTERM):
        flags = []
        for name, value in config.to_json().items():
            if isinstance(value, bool):
                flags.append(flag(name) if value else flag("no_" + name))
            elif value not in (None, []):
                flags += [flag(name), *show(value).split()]
        cache = {
            "JAX_COMPILATION_CACHE_DIR": cache_dir,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, place, str(int(number)), "train.py", *flags],
            cwd=ROOT,
            env={**os.environ, **cache, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


def cut_data_files(checkpoint):
    """Cuts the arrays of a checkpoint in half, and leaves all the rest of it whole."""
    files = [path for path in checkpoint.rglob("d/*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.usefixtures("compiled_once")
def test_killed_twice_and_damaged_ends_bit_equal(
    small_run, tmp_path, quiet, process, last_snapshot
):
    whole = small_run(workdir=str(tmp_path / "whole"))
    killed = small_run(workdir=str(tmp_path / "killed"))
    fit(whole, quiet)

    first = process(killed, "step3", signal.SIGKILL)
    assert first.returncode == -signal.SIGKILL, first.stderr
    second = process(killed, "best", signal.SIGKILL)
    assert second.returncode == -signal.SIGKILL, second.stderr
    assert "resuming" in second.stdout

    last = killed.directory / "checkpoints/last"
    newest = max(int(path.name) for path in last.iterdir() if path.name.isdigit())
    cut_data_files(last / str(newest))
    third = process(killed)
    assert third.returncode == 0, third.stderr
    assert f"checkpoint of step {newest} is damaged" in third.stdout
    assert f"going on from step {newest - 1}" in third.stdout

    ours, theirs = last_snapshot(killed), last_snapshot(whole)
    for a, b in zip(jax.tree.leaves(ours.state), jax.tree.leaves(theirs.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (ours.position, ours.history) == (theirs.position, theirs.history)
    for name in ("metrics.csv", "result.json", "model/model.safetensors"):
        same = (killed.directory / name, whole.directory / name)
        assert same[0].read_bytes() == same[1].read_bytes(), name
    for name in ("curves.png", "confusion.png"):  # drawn by the command, blank in the other run
        assert (killed.directory / name).stat().st_size > 10_000, name


@pytest.mark.usefixtures("compiled_once")
def test_killed_amid_an_average_ends_bit_equal(tiny_run, tmp_path, quiet, process, last_snapshot):
    fields = {"ema": 0.7, "accumulate": 2, "limit": 16, "eval_every": 3}
    whole = tiny_run(workdir=str(tmp_path / "whole"), **fields)
    killed = tiny_run(workdir=str(tmp_path / "killed"), **fields)
    fit(whole, quiet)
    assert process(killed, "step4", signal.SIGKILL).returncode == -signal.SIGKILL
    ended = process(killed)
    assert ended.returncode == 0, ended.stderr
    assert "resuming" in ended.stdout
    ours, theirs = last_snapshot(killed).state, last_snapshot(whole).state
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    model = "model/model.safetensors"
    assert (killed.directory / model).read_bytes() == (whole.directory / model).read_bytes()


def test_sigterm_saves_and_exits_with_zero(tiny_run, tmp_path, process):
    # Without the checkpoint after each step only the signal can have saved this one.
    config = tiny_run(workdir=str(tmp_path), checkpoint_every=60.0, steps=6, limit=160)
    ended = process(config, "step2", signal.SIGTERM)
    assert ended.returncode == 0, ended.stderr
    assert "stopped by SIGTERM after step 2" in ended.stdout
    assert "the same command continues" in ended.stdout
    assert [path.name for path in (tmp_path / "checkpoints/last").iterdir()] == ["2"]
