"""Checkpoints of two processes, without a training."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from test_checkpoints import RUN, damage, make_state

from flaxseg.training.checkpoints import Checkpoints, History

# A folder for each process stands for what hosts may see of one folder.
PROGRAM = """
import pathlib, sys
import jax
from flaxseg.distributed import Launch, joined
from flaxseg.sharding import make_mesh, replicated
from flaxseg.training.checkpoints import Checkpoints, History
from test_checkpoints import RUN, make_state

shared, *views = map(pathlib.Path, sys.argv[3:])
with joined(Launch("auto", sys.argv[1], 2, int(sys.argv[2])), timeout=60):
    place = replicated(make_mesh())
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        jax.eval_shape(make_state),
    )
    for folder in views:
        with Checkpoints(folder, RUN) as checkpoints:
            snapshot = checkpoints.restore(abstract, print)
            print("restored", int(snapshot.state.step), snapshot.position)
    with Checkpoints(shared, RUN) as checkpoints:
        for step in range(1, 7):
            checkpoints.save(step, snapshot.state, {"next": step}, History())
            checkpoints.save_best(step, snapshot.state, {"next": step}, History())
"""


class Ended(NamedTuple):
    """What two processes leave: lines of output, and the folders."""

    lines: list[list[str]]
    damaged: Path
    shared: Path


def two_views(folder):
    """The checkpoints of steps 3 and 5, as each process sees them; 5 is the best."""
    views = folder / "first", folder / "second"
    with Checkpoints(views[0], RUN) as checkpoints:
        for step in (3, 5):
            checkpoints.save(step, make_state(step), {"next": step}, History())
        checkpoints.save_best(5, make_state(5), {"next": 5}, History())
    shutil.copytree(*views)
    return views


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Two processes restore from two pairs of views, then save together."""
    folder = tmp_path_factory.mktemp("together")
    damaged, missing = two_views(folder / "damaged"), two_views(folder / "missing")
    damage(damaged[1], 5)
    shutil.rmtree(missing[0] / "last" / "5")  # what the process sees that moves damaged ones
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    one_device = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    env = {**os.environ, "XLA_FLAGS": one_device}
    running = []
    for process, views in enumerate(zip(damaged, missing, strict=True)):
        folders = map(str, (folder / "shared", *views))
        command = [sys.executable, "-c", PROGRAM, address, str(process), *folders]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(command, cwd=Path(__file__).parent, env=env, **pipes))
    try:
        outputs = [process.communicate(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], outputs
    ours = ("restored", "checkpoint")  # Gloo prints there, too
    lines = [[x for x in out.splitlines() if x.startswith(ours)] for out, _ in outputs]
    return Ended(lines, damaged[0], folder / "shared")


def test_all_go_on_from_the_newest_that_each_can_read(ended):
    for lines in ended.lines:
        assert lines[1::2] == ["restored 3 {'next': 3}"] * 2
    for process, line in ((1, ended.lines[0][0]), (0, ended.lines[0][2])):
        assert line.startswith(f"checkpoint of step 5 is damaged (process {process}: ")
    assert (ended.damaged / "damaged" / "5").is_dir()
    assert not (ended.damaged / "last" / "5").exists()
    assert not (ended.damaged / "best" / "5").exists()


def test_the_last_and_the_best_are_written_at_once(ended):
    """The two once met in each other's barriers; that failed in most runs, not in all."""
    assert sorted(path.name for path in (ended.shared / "last").iterdir()) == ["5", "6"]
    assert [path.name for path in (ended.shared / "best").iterdir()] == ["6"]
