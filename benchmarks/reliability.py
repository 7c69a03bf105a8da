"""Kills trainings at random moments, starts them again, and checks that nothing is lost.

    python benchmarks/reliability.py [--kills 20] [--seed 0] [--out docs/reliability.md]

A tiny ViT with BatchNorm and dropout trains on drawn shapes. A run is started, killed by SIGKILL or
SIGTERM at a moment that is drawn from its whole duration (imports, compilation, steps, evaluation,
saving), and started again with the same command, until it is finished; then the next run, until the
kills are used up. Every second run changes its number of devices at each start. Each finished run
is compared with one that nothing interrupted: same last step, same images in every step, and the
same bits of parameters, statistics and optimiser state where the number of devices did not change.
Exit code 1 if not.
"""

import argparse
import contextlib
import os
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from flaxseg.distributed import to_host
from flaxseg.training.checkpoints import Checkpoints
from flaxseg.training.config import TrainConfig
from flaxseg.training.samples import SAMPLES_FILE
from flaxseg.training.setup import Setup
from flaxseg.training.workdir import CHECKPOINTS, read_result

TRAIN = Path(__file__).parents[1] / "train.py"
FLAGS = (
    "--model vitseg --override patch_size=8 width=32 depth=1 mlp_dim=64 dropout=0.1 --limit 32 "
    "--batch-size 8 --image-size 32 32 --eval-size 32 32 --resize stretch --epochs 8 "
    "--eval-every 2 --log-every 1 --checkpoint-every 0.01 --log-samples"
)
DEVICES = 4
"""Of the runs whose number of devices stays."""

OTHERS = (1, 2, 4)
"""What the other runs change between."""

_DIFFERENCE = (
    "The difference is the largest one of any tensor, relative to its largest value: other numbers "
    "of devices add in another order, and the steps of AdamW enlarge that. An exit code of -15 "
    "means that SIGTERM came before the training took signals, or when it was over."
)


class Attempt(NamedTuple):
    """One start of a run.

    Attributes:
        devices: it had.
        blow: the signal that struck it, or "" if it came to its end.
        seconds: after which it struck.
        last: number of the last step in samples.csv after it.
        code: exit code.
        resumed: number of the step it went on from, None if it began.
    """

    devices: int
    blow: str
    seconds: float
    last: int
    code: int
    resumed: int | None


def start(workdir: Path, devices: int, cache: Path, *more: str) -> subprocess.Popen:
    """Starts, or goes on with, a run."""
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={max(OTHERS)}",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, str(TRAIN), *FLAGS.split(), "--workdir", str(workdir)]
    command += ["--devices", str(devices), *more]
    output = workdir.with_suffix(".log").open("w")
    return subprocess.Popen(command, env=env, stdout=output, stderr=output)


def attempt(workdir: Path, devices: int, cache: Path, blow: signal.Signals | None, seconds: float):
    """One start of a run, struck after some seconds if it is still at work."""
    process = start(workdir, devices, cache)
    struck = ""
    if blow is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        if process.poll() is None:
            process.send_signal(blow)
            struck = blow.name
    code = process.wait()
    output = workdir.with_suffix(".log").read_text()
    resumed = re.search(r"at step (\d+)", output) if "resuming" in output else None
    if code not in (0, -signal.SIGKILL, -signal.SIGTERM):
        raise SystemExit(f"a run ended with {code}: {output[-2000:]}")
    step = int(resumed.group(1)) if resumed else None
    return Attempt(devices, struck, seconds, last_step(workdir), code, step)


def last_step(workdir: Path) -> int:
    """Number of the last whole row of samples.csv, 0 if there is none."""
    path = workdir / SAMPLES_FILE
    lines = path.read_text().rpartition("\n")[0].splitlines()[1:] if path.exists() else []
    return int(lines[-1].partition(",")[0]) if lines else 0


def final_state(workdir: Path, devices: int) -> list[np.ndarray]:
    """Every tensor of the last checkpoint."""
    config = TrainConfig.load(workdir / "config.json")
    setup = Setup.of(TrainConfig.from_json({**config.to_json(), "devices": devices}))
    with Checkpoints(workdir / CHECKPOINTS, setup.identity()) as checkpoints:
        snapshot = checkpoints.restore(setup.abstract_state(), notify=print)
    return jax.tree.leaves(to_host(snapshot.state)) if snapshot else []


class Verdict(NamedTuple):
    """How a run that was killed compares with one that was not."""

    step: bool
    samples: bool
    equal: bool
    difference: float

    @classmethod
    def of(cls, killed: Path, whole: Path) -> "Verdict":
        """Compares two work directories."""
        ours, theirs = read_result(killed), read_result(whole)
        tensors = list(zip(final_state(killed, 1), final_state(whole, 1), strict=True))
        gaps = [np.abs(a - b).max() / max(np.abs(b).max(), 1e-30) for a, b in tensors]
        return cls(
            ours is not None and theirs is not None and ours.step == theirs.step,
            (killed / SAMPLES_FILE).read_bytes() == (whole / SAMPLES_FILE).read_bytes(),
            all(a.tobytes() == b.tobytes() for a, b in tensors),
            float(max(gaps)),
        )


def trial(folder: Path, kills: int, draw: random.Random) -> tuple[list[str], bool]:
    """Does all of it; returns the report's lines and whether everything is as it should."""
    cache, whole = folder / "compiled", folder / "whole"
    for devices in OTHERS:  # fills the cache, so that the duration is that of a later start
        start(folder / f"warm{devices}", devices, cache, "--max-steps", "8").wait()
    begun = time.monotonic()
    attempt(whole, DEVICES, cache, None, 0.0)
    duration = time.monotonic() - begun
    table = ["| run | start | devices | signal | after | went on from | last step | exit code |"]
    table += ["|---|---|---|---|---|---|---|---|"]
    verdicts = ["| run | devices | kills | same last step | same images | same bits | difference |"]
    verdicts += ["|---|---|---|---|---|---|---|"]
    run, struck, good = 0, 0, True
    while struck < kills:
        run += 1
        changing = run % 2 == 0
        workdir, attempts, devices = folder / f"run{run}", [], DEVICES
        while not (workdir / "result.json").exists():
            if changing:
                devices = draw.choice([count for count in OTHERS if count != devices])
            blow = draw.choice((signal.SIGKILL, signal.SIGTERM)) if struck < kills else None
            one = attempt(workdir, devices, cache, blow, draw.uniform(0, duration))
            struck += bool(one.blow)
            attempts.append(one)
            table.append(row(run, len(attempts), one))
            print(table[-1], flush=True)
        found = Verdict.of(workdir, whole)
        good &= found.step and found.samples and (changing or found.equal)
        verdicts.append(verdict_row(run, attempts, found))
        print(verdicts[-1], flush=True)
    return [f"An uninterrupted run takes {duration:.0f} s.", "", *verdicts, "", *table], good


def row(run: int, number: int, one: Attempt) -> str:
    """The line of a start."""
    after = f"{one.seconds:.1f} s" if one.blow else ""
    resumed = "the beginning" if one.resumed is None else f"step {one.resumed}"
    if one.resumed is None and number > 1 and one.code < 0:
        resumed = "had not begun"
    values = (run, number, one.devices, one.blow or "none", after, resumed, one.last, one.code)
    return "| " + " | ".join(map(str, values)) + " |"


def verdict_row(run: int, attempts: list[Attempt], found: Verdict) -> str:
    """The line of a run."""
    used = " ".join(str(one.devices) for one in attempts)
    kills = sum(bool(one.blow) for one in attempts)
    answers = ["yes" if fine else "no" for fine in found[:3]]
    values: list[Any] = [run, used, kills, *answers, f"{found.difference:.1e}"]
    return "| " + " | ".join(map(str, values)) + " |"


def write(file: Path, options: argparse.Namespace, lines: list[str], good: bool) -> None:
    """Puts the report between two marks of a Markdown file, or into a new one."""
    described = textwrap.fill(" ".join((__doc__ or "").split("\n\n")[2].split()), 100)
    command = f"python benchmarks/reliability.py --kills {options.kills} --seed {options.seed}"
    versions = f"jax {jax.__version__}, Python {platform.python_version()}"
    head = [described, "", f"`{command}`, {versions}, simulated CPU devices.", ""]
    head += [f"`train.py {FLAGS}`", ""]
    verdict = "Everything is as it should be." if good else "SOMETHING IS WRONG."
    report = "\n".join([*head, *lines, "", textwrap.fill(_DIFFERENCE, 100), "", verdict])
    put(file, "killed", report)


def put(file: Path, name: str, report: str) -> None:
    """Puts a report where it belongs in a Markdown file: between its mark and the next end."""
    mark, end = f"<!-- {name} -->", "<!-- end -->"
    text = file.read_text() if file.exists() else ""
    before, _, rest = text.partition(mark)
    file.write_text(f"{before}{mark}\n{report}\n{end}{rest.partition(end)[2] or chr(10)}")


def main():
    """Runs the trial and writes the report."""
    parser = argparse.ArgumentParser(description="runs that are killed at random moments")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of moments, signals and devices")
    parser.add_argument("--out", type=Path, help="Markdown file for the report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines, good = trial(Path(folder), options.kills, random.Random(options.seed))
    if options.out:
        write(options.out, options, lines, good)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"
    jax.config.update("jax_platforms", "cpu")
    main()
