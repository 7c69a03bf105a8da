"""Sends SIGTERM to one of two processes in every phase of a training, and looks what both leave.

    python benchmarks/stopped_together.py [--timeout 300]

The network of reliability.py trains in two processes of two simulated devices each. A run is
started, one process gets the signal while it is in a phase, both are to save and end, the same
command goes on and is struck in the next phase, until none is left; once the first process is
struck, once the second. After each blow both exit codes must be 0, and the newest checkpoint must
be that of the last step in samples.csv, which is the step that the run says it stopped after. Both
runs must end with the images and the bits of one that nothing interrupted. Exit code 1 if not.
"""

import argparse
import functools
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from reliability import FLAGS, TRAIN, Verdict, last_step

from flaxseg.training import setup
from flaxseg.training.checkpoints import Checkpoints
from flaxseg.training.program import StepProgram
from flaxseg.training.workdir import CHECKPOINTS

PHASES: dict[str, tuple[Any, str, int, float]] = {
    "compiling": (StepProgram, "of", 1, 0.5),
    "a step": (StepProgram, "__call__", 6, 0.001),
    "opening the data": (setup, "open_datasets", 1, 0.05),
    "restoring": (Checkpoints, "restore", 1, 0.05),
    "compiling, resumed": (StepProgram, "of", 1, 0.5),
    "saving": (Checkpoints, "save", 2, 0.02),
    "writing a checkpoint": (Checkpoints, "save", 2, 0.8),
    "evaluating": (setup.Setup, "evaluator", 1, 0.05),
    "saving the best": (Checkpoints, "save_best", 1, 0.002),
}
"""Where each phase is, at which call of it the signal comes, and how many seconds after its start.
A checkpoint is written behind `save`: that has returned by then."""


class Blow(NamedTuple):
    """What became of a start.

    Attributes:
        phase: in which the signal came.
        process: that it came to.
        codes: exit codes of both.
        times: from the start of the phase to the signal and to its end, in ms; " | " without one.
        said: number of the step that the run says it stopped after.
        trained: of the last step in samples.csv.
        saved: of the newest checkpoint.
    """

    phase: str
    process: int
    codes: tuple[int, ...]
    times: str
    said: int | None
    trained: int
    saved: int

    @property
    def good(self) -> bool:
        """Whether the signal came, nothing is lost and nobody complains."""
        struck = (self.phase == "none") == (self.times == " | ")
        return struck and self.codes == (0, 0) and self.said == self.trained == self.saved

    def row(self) -> str:
        """Its line in Markdown."""
        values = (self.process, self.phase, self.times, self.said, self.trained, self.saved)
        codes = " ".join(map(str, self.codes))
        return "| " + " | ".join(map(str, (*values, codes))) + " |"


def worker(phase: str, note: Path, flags: list[str]) -> None:
    """One process: trains, and sends itself SIGTERM in a phase, if one is named."""
    if phase:
        owner, name, call, delay = PHASES[phase]
        strike_in(owner, name, call, delay, note)
    sys.argv = [str(TRAIN), *flags]
    runpy.run_path(str(TRAIN), run_name="__main__")


def strike_in(
    owner: Any,
    name: str,
    call: int,
    delay: float,
    note: Path,
    blow: signal.Signals = signal.SIGTERM,
) -> None:
    """Makes a function send a signal to its process while it runs, at one of its calls."""
    calls = 0

    def struck(function: Callable, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != call:
            return function(*args, **kwargs)
        begun, sent = time.monotonic(), []

        def strike() -> None:
            sent.append(time.monotonic() - begun)
            os.kill(os.getpid(), blow)

        timer = threading.Timer(delay, strike)
        timer.start()
        try:
            return function(*args, **kwargs)
        finally:
            took = time.monotonic() - begun
            timer.join()  # the phase does not end before the signal
            note.write_text(f"{1000 * sent[0]:.0f} | {1000 * took:.0f}")

    original = owner.__dict__[name]
    if isinstance(original, functools.cached_property):  # gives the function that is the phase
        replacement = functools.cached_property(
            lambda self: functools.partial(struck, original.func(self))
        )
        replacement.__set_name__(owner, name)
    elif isinstance(original, classmethod):
        bound = getattr(owner, name)
        replacement = staticmethod(functools.partial(struck, bound))
    else:

        def replacement(*args: Any, **kwargs: Any) -> Any:
            return struck(original, *args, **kwargs)

    setattr(owner, name, replacement)


def start(workdir: Path, phase: str, process: int, timeout: float) -> Blow:
    """Starts both processes, lets one be struck in a phase, and waits for them."""
    address = free_address()
    note, running = workdir.with_suffix(".note"), []
    note.write_text(" | ")
    for index in range(2):
        flags = [*FLAGS.split(), "--workdir", str(workdir), "--coordinator", address]
        flags += ["--num-processes", "2", "--process-id", str(index)]
        chosen = phase if index == process else ""
        command = [sys.executable, __file__, "--worker", chosen, "--note", str(note), "--", *flags]
        log = workdir.with_suffix(f".log{index}").open("w")
        running.append(subprocess.Popen(command, env=environment(workdir), stdout=log, stderr=log))
    deadline = time.monotonic() + timeout
    try:
        codes = tuple(p.wait(max(0.0, deadline - time.monotonic())) for p in running)
    finally:
        for one in running:
            one.kill()
    output = workdir.with_suffix(".log0").read_text()
    said = re.search(r"after step (\d+), saved in|done: .* of (\d+);", output)
    return Blow(
        phase or "none",
        process,
        codes,
        note.read_text(),
        int(said.group(1) or said.group(2)) if said else None,
        last_step(workdir),
        newest(workdir),
    )


def free_address() -> str:
    """HOST:PORT at which process 0 may listen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def environment(workdir: Path) -> dict[str, str]:
    """That of every process."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "COLUMNS": "200",
    }


def newest(workdir: Path) -> int:
    """Number of the newest whole checkpoint, 0 if there is none."""
    steps = (path.name for path in (workdir / CHECKPOINTS / "last").glob("*"))
    return max((int(name) for name in steps if name.isdecimal()), default=0)


def trial(folder: Path, timeout: float) -> bool:
    """Prints the tables; True if everything is as it should be."""
    whole, good, verdicts = folder / "whole", True, []
    if not start(whole, "", 0, timeout).good:
        return complain(whole)
    print(
        "| process | phase | signal after, ms | phase took, ms | says step | last step | newest "
        "checkpoint | exit codes |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for process in range(2):
        workdir = folder / f"run{process}"
        for phase in (*PHASES, ""):
            blow = start(workdir, phase, process, timeout)
            print(blow.row(), flush=True)
            if not blow.good:
                return complain(workdir)
        found = Verdict.of(workdir, whole)
        good &= all(found[:3])
        answers = " | ".join("yes" if fine else "no" for fine in found[:3])
        verdicts.append(f"| {process} | {answers} |")
    print("\n| process struck | same last step | same images | same bits |\n|---|---|---|---|")
    print(*verdicts, sep="\n")
    return good


def complain(workdir: Path) -> bool:
    """Shows what the last start of a run has said."""
    for index in range(2):
        print(workdir.with_suffix(f".log{index}").read_text()[-3000:], file=sys.stderr)
    return False


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="two processes that are stopped in every phase")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for a start")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--note", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("flags", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        worker(options.worker, options.note, options.flags)
        return
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"
    jax.config.update("jax_platforms", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if trial(Path(folder), options.timeout) else 1)


if __name__ == "__main__":
    main()
