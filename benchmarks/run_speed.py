"""Steps of a real training beside the bare step, and what of the CPU goes to the system.

    python benchmarks/run_speed.py --data-dir CAMVID [--models bisenetv2 segformer_b0]
        [--steps 60] [--batch-size 8] [--json FILE]

Each network trains by the recipe "camvid", in a process of its own: reading and augmenting
pictures, logging, a checkpoint after each epoch and one at the end. Evaluations are not counted.
The same program is timed on one batch that lies in memory, before the first step and after the
last one. It cannot use a core that loads pictures, and where all cores multiply matrices anyway,
reading pictures takes from them.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from speed_machine import machine
from speed_page import trainings

from flaxseg.heap import keep_memory
from flaxseg.training import fit, make_config
from flaxseg.training.loop import _Run
from flaxseg.training.program import StepProgram

SIZE = 352, 480
"""Of the crops: CamVid at half its size, as it is usually handed on."""

BARE = 15
"""Bare steps before and after."""

FIRST = 3
"""Steps of the run that are not counted: its buffers are new."""


class Watch:
    """Stands between a run and its program.

    Args:
        steps: length of the run.
    """

    def __init__(self, steps: int):
        self._steps, self._made, self._aside = steps, 0, (0.0, 0.0, 0.0)
        self._start = self._aside
        self._call, self._evaluate = StepProgram.__call__, _Run._evaluate
        self.bare: list[float] = []
        self.run: tuple[float, float, float] | None = None

    def __enter__(self) -> "Watch":
        def call(program: StepProgram, state: Any, image: Any, label: Any) -> Any:
            if self._made == 0:
                self._time_bare(program, state, image, label)
            if self._made == FIRST:
                self._start, self._aside = _now(), (0.0, 0.0, 0.0)
            stepped = self._call(program, state, image, label)
            self._made += 1
            if self._made == self._steps:
                jax.block_until_ready(stepped)
                self.run = _less(_less(_now(), self._start), self._aside)
                self._time_bare(program, stepped[0], image, label)
            return stepped

        def evaluate(run: _Run) -> None:
            begin = _now()
            self._evaluate(run)
            self._aside = _less(self._aside, _less(begin, _now()))

        StepProgram.__call__, _Run._evaluate = call, evaluate
        return self

    def __exit__(self, *_: object) -> None:
        StepProgram.__call__, _Run._evaluate = self._call, self._evaluate

    def _time_bare(self, program: StepProgram, state: Any, image: Any, label: Any) -> None:
        state = jax.tree.map(jnp.copy, state)
        for number in range(BARE + 1):
            begin = time.perf_counter()
            state, _ = jax.block_until_ready(self._call(program, state, image, label))
            if number:
                self.bare.append(time.perf_counter() - begin)


def _now() -> tuple[float, float, float]:
    """Seconds of the clock, of the CPU in the process itself, and of it in the system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime, used.ru_stime


def _less(a: tuple[float, ...], b: tuple[float, ...]) -> Any:
    return tuple(x - y for x, y in zip(a, b, strict=True))


def measure(model: str, data_dir: str, steps: int, batch_size: int) -> dict[str, Any]:
    """Trains a network; the process is not to be used for another."""
    keep_memory()  # as `flaxseg train` does
    with tempfile.TemporaryDirectory() as folder, Watch(steps) as watch:
        config = make_config(
            model,
            recipe="camvid",
            data_dir=data_dir,
            steps=steps,
            batch_size=batch_size,
            image_size=SIZE,
            workdir=folder,
        )
        fit(config)
    assert watch.run is not None
    wall, user, system = watch.run
    # Means on both sides: every few steps the system takes longer to hand out memory.
    counted, bare = steps - FIRST, statistics.mean(watch.bare)
    return {
        "model": model,
        "batch": batch_size,
        "image_size": config.image_size,
        "steps": counted,
        "run": counted / wall,
        "bare": 1 / bare,
        "bare_seconds": watch.bare,
        "share": counted / wall * bare,
        "system": system / (user + system),
    }


def in_a_process(function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """What the function returns in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def main() -> None:
    """Measures all networks and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data-dir", required=True, help="CamVid's folder")
    parser.add_argument("--models", nargs="+", default=["bisenetv2", "segformer_b0"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--json", type=Path, help="file for the figures and the machine")
    given = parser.parse_args()
    run: dict[str, Any] = {"machine": machine(), "rows": []}
    for model in given.models:
        row = in_a_process(measure, model, given.data_dir, given.steps, given.batch_size)
        run["rows"].append(row)
        if given.json:
            given.json.write_text(json.dumps(run, indent=1))
    print(trainings(run))


if __name__ == "__main__":
    main()
