"""Kills one of four processes in every phase of a training, and looks what the others do.

    python benchmarks/killed_together.py [--timeout 900] [--out docs/reliability.md]

The network of the trial above trains in four processes of two simulated devices each. One of them
kills itself by SIGKILL in the middle of a step, of a save or of an evaluation: process 0, which the
others find each other through, and another one. The others must end within 20 s, with exit code 2
and one error each, which names the process that was killed; the table counts those in which JAX
writes lines of its own, too. The same command goes on, is struck in the next phase, and comes to
its end with four, two or one processes. No checkpoint may be damaged, and the end is compared with
that of a run that nothing interrupted: same last step, same images in every step, and the same bits
where there were always four processes. Last, a process stands still for 40 s, by SIGSTOP, while it
opens the data or in the middle of a step; that must change nothing. Exit code 1 if not.
"""

import argparse
import os
import platform
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
from reliability import FLAGS, TRAIN, Verdict, last_step, put
from stopped_together import environment, free_address, newest, strike_in

from flaxseg.training import setup
from flaxseg.training.checkpoints import Checkpoints
from flaxseg.training.program import StepProgram
from flaxseg.training.workdir import CHECKPOINTS

PROCESSES = 4
BOUND_SECONDS = 20.0
SLOW_SECONDS = 40.0
DIFFERENCE = 0.01
"""Most that the weights of other numbers of processes may differ by; see `Verdict`."""

PHASES: dict[str, tuple[Any, str, int, float]] = {
    "opening the data": (setup, "open_datasets", 1, 0.05),
    "a step": (StepProgram, "__call__", 6, 0.001),
    "a save": (Checkpoints, "save", 2, 0.3),
    "an evaluation": (setup.Setup, "evaluator", 1, 0.05),
}
"""Where each phase is, at which call of it the signal comes, and how many seconds after its start.
A checkpoint is written behind `save`."""


class Blow(NamedTuple):
    """A signal to one of the processes.

    Attributes:
        process: that it comes to.
        phase: in which it comes.
        name: of the signal, SIGKILL, or SIGSTOP for a process that goes on after a while.
    """

    process: int
    phase: str
    name: str = "SIGKILL"

    @property
    def is_survived(self) -> bool:
        """Whether the process goes on."""
        return self.name == "SIGSTOP"


class Run(NamedTuple):
    """What is done to a run, and how many processes bring it to its end."""

    blows: tuple[Blow, ...]
    last: int


RUNS = (
    Run((Blow(0, "a step"), Blow(1, "a save"), Blow(0, "an evaluation")), 4),
    Run((Blow(2, "a step"), Blow(0, "a save")), 2),
    Run((Blow(3, "an evaluation"),), 1),
    Run((Blow(2, "opening the data", "SIGSTOP"),), 4),
    Run((Blow(0, "a step", "SIGSTOP"),), 4),
)


class Start(NamedTuple):
    """What became of a start.

    Attributes:
        processes: of it.
        blow: what came to one of them, if anything.
        codes: exit codes.
        seconds: from the end of the struck process to that of the last one.
        resumed: number of the step that it went on from, None if it began.
        trained: of the last step in samples.csv.
        saved: of the newest checkpoint that is whole.
        halves: checkpoints that were left unfinished.
        errors: what each process wrote to standard error.
        damaged: whether a checkpoint was found damaged.
    """

    processes: int
    blow: Blow | None
    codes: tuple[int, ...]
    seconds: float
    resumed: int | None
    trained: int
    saved: int
    halves: int
    errors: tuple[str, ...]
    damaged: bool

    @property
    def killed(self) -> int | None:
        """Number of the process that was killed."""
        return self.blow.process if self.blow and not self.blow.is_survived else None

    @property
    def named(self) -> bool:
        """Whether every other process told in its only line of ours which one was killed."""
        reason = f"process {self.killed} failed: it is gone"
        said = [[x for x in text.splitlines() if x.startswith("error: ")] for text in self.others]
        return all(len(lines) == 1 and reason in lines[0] for lines in said)

    @property
    def others(self) -> list[str]:
        """What those processes wrote that were not killed."""
        return [text for process, text in enumerate(self.errors) if process != self.killed]

    @property
    def noisy(self) -> int:
        """Number of processes in which JAX added lines of its own."""
        return sum(len(text.splitlines()) > 1 for text in self.others)

    @property
    def good(self) -> bool:
        """Whether the processes did what they should."""
        if self.damaged:
            return False
        if self.killed is None:
            return not any(self.codes)
        wanted = [2] * self.processes
        wanted[self.killed] = -signal.SIGKILL
        return list(self.codes) == wanted and self.named and self.seconds < BOUND_SECONDS

    def row(self, run: int) -> str:
        """Its line in Markdown."""
        killed = self.killed is not None
        values = (
            run,
            self.processes,
            *self._struck(),
            "the beginning" if self.resumed is None else f"step {self.resumed}",
            f"{self.seconds:.1f} s" if killed else "",
            _answer(self.named) if killed else "",
            self.noisy if killed else "",
            " ".join(map(str, self.codes)),
            self.trained,
            self.saved,
            self.halves,
        )
        return _row(values)

    def _struck(self) -> tuple[Any, ...]:
        if self.blow is None:
            return "none", "", ""
        return self.blow.name, self.blow.process, self.blow.phase


_HEAD = (
    "run",
    "processes",
    "signal",
    "to process",
    "in",
    "went on from",
    "the others ended after",
    "all name it",
    "JAX in",
    "exit codes",
    "last step",
    "newest checkpoint",
    "unfinished ones",
)
_VERDICT = (
    "run",
    "ended with",
    "kills",
    "same last step",
    "same images",
    "same bits",
    "difference",
)


def worker(phase: str, blow: str, note: Path, flags: list[str]) -> None:
    """One process: trains, and sends itself a signal in a phase, if one is named."""
    if phase:
        strike_in(*PHASES[phase], note, signal.Signals[blow])
    sys.argv = [str(TRAIN), *flags]
    runpy.run_path(str(TRAIN), run_name="__main__")


def start(workdir: Path, processes: int, blow: Blow | None, timeout: float) -> Start:
    """Starts all processes, lets one be struck, and waits for them."""
    address, running = free_address(), []
    for index in range(processes):
        flags = [*FLAGS.split(), "--workdir", str(workdir)]
        if processes > 1:
            flags += ["--coordinator", address, "--num-processes", str(processes)]
            flags += ["--process-id", str(index)]
        chosen = blow if blow and blow.process == index else None
        command = [sys.executable, __file__, "--note", str(workdir.with_suffix(".note"))]
        command += ["--worker", chosen.phase if chosen else ""]
        command += ["--blow", chosen.name if chosen else "", "--", *flags]
        with (
            _log(workdir, "out", index).open("w") as out,
            _log(workdir, "err", index).open("w") as err,
        ):
            running.append(
                subprocess.Popen(command, env=environment(workdir), stdout=out, stderr=err)
            )
    ends = _ends(running, blow, timeout)
    outputs = [_log(workdir, "out", index).read_text() for index in range(processes)]
    resumed = re.search(r"resuming .* at step (\d+)", outputs[0])
    folder = workdir / CHECKPOINTS
    return Start(
        processes,
        blow,
        tuple(process.returncode for process in running),
        max(ends) - ends[blow.process] if blow else 0.0,
        int(resumed.group(1)) if resumed else None,
        last_step(workdir),
        newest(workdir),
        sum(not path.name.isdecimal() for path in folder.glob("[lb]*st/*")),
        tuple(_log(workdir, "err", index).read_text() for index in range(processes)),
        (folder / "damaged").exists() or "is damaged" in outputs[0],
    )


def _ends(running: list[subprocess.Popen], blow: Blow | None, timeout: float) -> list[float]:
    """When each process has ended; one that stops goes on after a while."""
    ends, deadline = [0.0] * len(running), time.monotonic() + timeout
    goes_on = deadline
    stops = blow is not None and blow.is_survived
    while not all(ends):
        now = time.monotonic()
        for index, process in enumerate(running):
            if now > deadline:
                process.kill()
            if stops and blow and index == blow.process and _is_stopped(process):
                goes_on, stops = now + SLOW_SECONDS, False
            if now > goes_on and blow and index == blow.process:
                process.send_signal(signal.SIGCONT)
                goes_on = deadline
            if not ends[index] and process.poll() is not None:
                ends[index] = now
        time.sleep(0.02)
    return ends


def _is_stopped(process: subprocess.Popen) -> bool:
    return os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG) is not None


def _log(workdir: Path, kind: str, index: int) -> Path:
    return workdir.with_suffix(f".{kind}{index}")


def trial(folder: Path, timeout: float) -> tuple[list[str], bool]:
    """Does all of it; returns the report's lines and whether everything is as it should be."""
    whole, good = folder / "whole", True
    table, verdicts = _table(_HEAD), _table(_VERDICT)
    if not (first := start(whole, PROCESSES, None, timeout)).good:
        complain(first)
        return [], False
    for number, run in enumerate(RUNS, 1):
        workdir = folder / f"run{number}"
        end = () if run.blows[-1].is_survived else (None,)
        for blow in (*run.blows, *end):
            found = start(workdir, PROCESSES if blow else run.last, blow, timeout)
            table.append(found.row(number))
            print(table[-1], flush=True)
            if not found.good:
                complain(found)
                good = False
        verdict = Verdict.of(workdir, whole)
        same = verdict.equal or (run.last != PROCESSES and verdict.difference < DIFFERENCE)
        good &= verdict.step and verdict.samples and same
        answers = [_answer(fine) for fine in verdict[:3]]
        kills = sum(not blow.is_survived for blow in run.blows)
        values = (number, run.last, kills, *answers, f"{verdict.difference:.1e}")
        verdicts.append(_row(values))
        print(verdicts[-1], flush=True)
    return [*table, "", *verdicts], good


def _table(head: tuple[str, ...]) -> list[str]:
    return [_row(head), "|" + "---|" * len(head)]


def _row(values: tuple[Any, ...]) -> str:
    return "| " + " | ".join(map(str, values)) + " |"


def _answer(value: bool) -> str:
    return "yes" if value else "no"


def complain(found: Start) -> None:
    """Shows what a start has said."""
    for process, text in enumerate(found.errors):
        print(f"--- process {process}\n{text[-3000:]}", file=sys.stderr, flush=True)


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="four processes, one of which is killed")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for a start")
    parser.add_argument("--out", type=Path, help="Markdown file for the report")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--blow", help=argparse.SUPPRESS)
    parser.add_argument("--note", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("flags", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        worker(options.worker, options.blow, options.note, options.flags)
        return
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"
    jax.config.update("jax_platforms", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        lines, good = trial(Path(folder), options.timeout)
    if options.out:
        put(options.out, "killed together", report(lines, good))
    sys.exit(0 if good else 1)


def report(lines: list[str], good: bool) -> str:
    """The tables and what they are of."""
    described = textwrap.fill(" ".join((__doc__ or "").split("\n\n")[2].split()), 100)
    versions = f"jax {jax.__version__}, Python {platform.python_version()}"
    command = f"`python benchmarks/killed_together.py`, {versions}, simulated CPU devices."
    verdict = "Everything is as it should be." if good else "SOMETHING IS WRONG."
    return "\n".join([described, "", command, "", *lines, "", verdict])


if __name__ == "__main__":
    main()
