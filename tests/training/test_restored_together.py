"""Two processes that see different checkpoints go on from the same one."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_checkpoints import RUN, damage, make_state

from flaxseg.training.checkpoints import Checkpoints, History

# A folder for each process stands for what hosts may see of one folder.
PROGRAM = """
import pathlib, sys
import jax
from flaxseg.distributed import Launch, joined
from flaxseg.sharding import make_mesh, replicated
from flaxseg.training.checkpoints import Checkpoints
from test_checkpoints import RUN, make_state

with joined(Launch("auto", sys.argv[1], 2, int(sys.argv[2])), timeout=60):
    place = replicated(make_mesh())
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        jax.eval_shape(make_state),
    )
    for folder in sys.argv[3:]:
        with Checkpoints(pathlib.Path(folder), RUN) as checkpoints:
            snapshot = checkpoints.restore(abstract, print)
            print("restored", int(snapshot.state.step), snapshot.position, flush=True)
"""


@pytest.fixture
def views(tmp_path):
    """Makes a folder with the checkpoints of steps 3 and 5 for each process; 5 is the best."""

    def make(name):
        first, second = tmp_path / name / "first", tmp_path / name / "second"
        with Checkpoints(first, RUN) as checkpoints:
            for step in (3, 5):
                checkpoints.save(step, make_state(step), {"next": step}, History())
            checkpoints.save_best(5, make_state(5), {"next": 5}, History())
        shutil.copytree(first, second)
        return first, second

    return make


def restored_by_both(*views):
    """Exit codes and outputs of two processes that restore from one view after the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = []
    for process, folders in enumerate(zip(*views, strict=True)):
        command = [sys.executable, "-c", PROGRAM, address, str(process), *map(str, folders)]
        running.append(subprocess.Popen(command, cwd=Path(__file__).parent, env=env, **pipes))
    outputs, errors = zip(*(process.communicate(timeout=120) for process in running), strict=True)
    assert [process.returncode for process in running] == [0, 0], errors
    return [[line for line in output.splitlines() if "Gloo" not in line] for output in outputs]


def test_all_go_on_from_the_newest_that_each_can_read(views):
    damaged, missing = views("damaged"), views("missing")
    damage(damaged[1], 5)
    shutil.rmtree(missing[0] / "last" / "5")  # what the process sees that moves damaged ones

    outputs = restored_by_both(damaged, missing)
    for lines in outputs:
        assert lines[1::2] == ["restored 3 {'next': 3}"] * 2
    for process, line in ((1, outputs[0][0]), (0, outputs[0][2])):
        assert line.startswith(f"checkpoint of step 5 is damaged (process {process}: ")
    assert (damaged[0] / "damaged" / "5").is_dir()
    assert not (damaged[0] / "last" / "5").exists()
    assert not (damaged[0] / "best" / "5").exists()
