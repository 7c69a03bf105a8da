"""Two processes of four devices each, on one machine."""

import csv
import dataclasses
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from flaxseg import distributed
from flaxseg.distributed import Launch, launched_by_cluster
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.training import fit, make_config
from flaxseg.training.config import flag, show

ROOT = Path(__file__).parents[2]

# A process signals itself at a chosen place: no test has to guess how fast it is.
# A stranger comes to the port of process 0 before the other process does.
PROGRAM = """
import os, runpy, signal, socket, sys
from flaxseg import lifeline
from flaxseg.training import loop

place = sys.argv[1]

def strike_at(owner, name, number, is_time):
    original = getattr(owner, name)
    def method(*args):
        if is_time(*args):
            os.kill(os.getpid(), number)
        return original(*args)
    setattr(owner, name, method)

def after_a_stranger(host, invitation, process, lost, hold_first=lifeline.hold_first):
    with socket.create_connection((host, int(invitation.split()[0]))) as stranger:
        stranger.sendall(f"{process}\\n".encode())
    hold_first(host, invitation, process, lost)

lifeline.hold_first = after_a_stranger
if place == "step3":
    strike_at(loop.Monitor, "push", signal.SIGTERM, lambda monitor, step, *_: step == 3)
elif place == "begin":
    strike_at(loop.processes, "open_workdir", signal.SIGKILL, lambda *_: True)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def config(tmp_path):
    """A run of 8 steps of a network with three tensors that are large enough to be split."""
    return make_config(
        "vitseg",
        override=("patch_size=8", "width=64", "depth=1", "mlp_dim=256"),
        limit=32,
        batch_size=8,
        epochs=2,
        eval_every=2,
        log_every=1,
        image_size=(16, 16),
        eval_size=(16, 16),
        checkpoint_every=0.0,
        hours=24.0,
        workdir=str(tmp_path / "run"),
    )


@pytest.fixture
def both(cache_dir):
    """Runs train.py in two processes, the second of which signals itself at a place; returns exit
    codes, outputs and errors."""

    def run(first, second, place="nowhere"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = {
            **os.environ,
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4",
            "JAX_COMPILATION_CACHE_DIR": cache_dir,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "COLUMNS": "200",
        }
        running = []
        for index, config in enumerate((first, second)):
            config = dataclasses.replace(
                config, coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=index
            )
            strike = place if index else "nowhere"
            command = [sys.executable, "-c", PROGRAM, strike, "train.py", *flags(config)]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            running.append(subprocess.Popen(command, cwd=ROOT, env=env, **pipes))
        ended = [process.communicate(timeout=240) for process in running]
        return [process.returncode for process in running], *zip(*ended, strict=True)

    return run


def flags(config):
    result = []
    for name, value in config.to_json().items():
        if isinstance(value, bool):
            result.append(flag(name) if value else flag("no_" + name))
        elif value not in (None, []):
            result += [flag(name), *show(value).split()]
    return result


def losses(config):
    with open(config.directory / "metrics.csv") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


@pytest.mark.usefixtures("compiled_once")
def test_two_processes_train_and_stop_together(config, both, quiet, tmp_path):
    split = dataclasses.replace(config, fsdp=2)

    # One is to stop: both do, after the same step.
    codes, outputs, errors = both(split, split, "step3")
    assert codes == [0, 0], errors
    assert "8 x cpu (data 4 x fsdp 2) in 2 processes" in outputs[0]
    assert "epoch" not in outputs[1] and "--model" not in outputs[1]
    assert "stopped by a signal to another process after step" in outputs[0]
    assert not (config.directory / "result.json").exists()

    # One process goes on where two have stopped, on another mesh.
    result = fit(dataclasses.replace(config, fsdp=8), quiet)
    assert result.finished and result.step == 8
    assert "resuming" in quiet.export_text()
    alone = dataclasses.replace(config, workdir=str(tmp_path / "alone"), devices=1)
    fit(alone, quiet)
    np.testing.assert_allclose(losses(config), losses(alone), rtol=1e-4)


def test_an_error_of_one_process_ends_both(config, both):
    codes, _, errors = both(config, dataclasses.replace(config, lr=0.125, limit=31))
    assert codes == [2, 2], errors
    reason = "all processes need the same settings: --lr is 0.0004 in process 0, 0.125 here"
    assert f"error: process 1: {reason}" in errors[1]
    assert f"error: process 0 ends as process 1 failed: {reason}" in errors[0]
    assert not config.directory.exists()


def test_a_process_that_is_killed_ends_both(config, both):
    codes, _, errors = both(config, config, "begin")
    assert codes == [2, -signal.SIGKILL], errors
    assert "error: process 0 ends as process 1 failed: it is gone without a word" in errors[0]
    assert not config.directory.exists()


def test_what_may_follow_from_a_loss_waits_for_its_reason(monkeypatch):
    """A save that fails because another process is gone must not be told as the reason."""
    waited, told = [], []
    monkeypatch.setattr(distributed.time, "sleep", waited.append)
    monkeypatch.setattr(distributed, "_quit", lambda line, code: told.append((line, code, *waited)))
    lost = CheckpointError("it could not be written")
    lost.__cause__ = jax.errors.JaxRuntimeError("connection reset by peer")
    for error in (lost, CheckpointError("it could not be written")):
        distributed._end_all(error)
        waited.clear()
    line = "error: process 0: it could not be written"
    assert told == [(line, 2, distributed._SECONDS_TO_HEAR), (line, 2)]


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (("auto", "host:1", None, None), "--coordinator needs --num-processes and --process-id"),
        (("auto", None, 2, 0), "--num-processes and --process-id needs --coordinator too"),
        (("auto", "host", 2, 0), "--coordinator is 'host', it must be HOST:PORT"),
        (("auto", "host:1", 2, 2), "--process-id is 2, with --num-processes 2 it must be from 0"),
        (("off", "host:1", 2, 0), "--distributed off leaves no use for --coordinator and"),
    ],
)
def test_incomplete_settings_are_named(launch, message):
    with pytest.raises(ConfigError, match=message):
        Launch(*launch).check()


def test_a_job_of_one_task_is_left_alone():
    assert launched_by_cluster({"SLURM_NTASKS": "8", "SLURM_PROCID": "3"})
    assert launched_by_cluster({"OMPI_COMM_WORLD_SIZE": "2"})
    assert not launched_by_cluster({"SLURM_NTASKS": "1"})
    assert not launched_by_cluster({})
