"""How long training stands still for a checkpoint that is written behind it.

    python benchmarks/async_saving.py [--override K=V ...] [--steps 12] [--rounds 9]

A ViT trains with AdamW on one batch of noise. A round is three times the same number of steps, in
changing order: without a checkpoint, with one that is started before the first of them, as the
training loop does it, and with one that is waited for. The medians of the rounds are printed.
"""

import argparse
import concurrent.futures
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from flaxseg.sharding import put_batch
from flaxseg.training import make_config
from flaxseg.training.checkpoints import Checkpoints, History
from flaxseg.training.setup import Setup
from flaxseg.training.step import TrainState

NETWORK = ("depth=4",)
IMAGE_SIZE, BATCH_SIZE = (64, 64), 4
KINDS = ("none", "background", "blocking")


class Leg(NamedTuple):
    """Some steps, and the checkpoint before them; all in seconds, from the same moment.

    Attributes:
        still: when the first step was started.
        steps: start and end of each.
        whole: when the checkpoint was whole.
    """

    still: float
    steps: list[tuple[float, float]]
    whole: float

    @property
    def total(self) -> float:
        """When the last step had ended."""
        return self.steps[-1][1]

    def durations(self, beside: bool) -> list[float]:
        """Of the steps that ended before the checkpoint was whole, or of those begun after."""
        return [b - a for a, b in self.steps if (b <= self.whole if beside else a >= self.whole)]


class Trainer:
    """A run on one batch."""

    def __init__(self, setup: Setup, checkpoints: Checkpoints):
        """Makes the state and compiles the step."""
        self.setup, self.checkpoints = setup, checkpoints
        self.state: TrainState = setup.init()
        rng = np.random.default_rng(0)
        shape = (BATCH_SIZE, *IMAGE_SIZE)
        image = rng.integers(0, 256, (*shape, 3), np.uint8)
        label = rng.integers(0, 2, shape, np.uint8)
        self.batch = put_batch((image, label), setup.mesh)
        self.saves = 0

    def leg(self, steps: int, kind: str) -> Leg:
        """Makes steps, after a checkpoint of one of `KINDS`."""
        begun = time.perf_counter()

        def now() -> float:
            return time.perf_counter() - begun

        def until_whole(place: Path) -> float:
            while not place.exists():
                time.sleep(0.002)
            return now()

        with concurrent.futures.ThreadPoolExecutor(1) as watch:
            whole = None
            if kind != "none":
                whole = watch.submit(until_whole, self._save())
            if kind == "blocking":
                self.checkpoints.wait()
            still, ended = now(), []
            for _ in range(steps):
                start = now()
                self.state, metrics = self.setup.program(self.state, *self.batch)
                jax.block_until_ready(metrics)
                ended.append((start, now()))
            self.checkpoints.wait()
        return Leg(still, ended, whole.result() if whole else 0.0)

    def _save(self) -> Path:
        self.saves += 1
        self.checkpoints.save(self.saves, self.state, {}, History())
        return self.checkpoints.directory / "last" / str(self.saves)


def report(legs: dict[str, list[Leg]], steps: int) -> None:
    """Prints the medians in Markdown."""

    def median(kind: str, value: Callable[[Leg], float]) -> float:
        return statistics.median(value(leg) for leg in legs[kind])

    def row(name: str, text: Callable[[str], str]) -> None:
        print(f"| {name} | {text('background')} | {text('blocking')} |")

    def slowdown(kind: str) -> str:
        beside = [seconds for leg in legs[kind] for seconds in leg.durations(beside=True)]
        return f"{statistics.median(beside) / step:.2f}" if beside else ""

    step = statistics.median(d for leg in legs["none"] for d in leg.durations(beside=False))
    total = median("none", lambda leg: leg.total)
    print(f"A step without a checkpoint takes {step:.2f} s.\n")
    print("| | in the background | waited for |\n|---|---|---|")
    row("the checkpoint is whole after, s", lambda k: f"{median(k, lambda leg: leg.whole):.2f}")
    row("training stands still for, s", lambda k: f"{median(k, lambda leg: leg.still):.2f}")
    row("the same in steps", lambda k: f"{median(k, lambda leg: leg.still) / step:.2f}")
    row("steps meanwhile", lambda k: f"{median(k, lambda leg: len(leg.durations(True))):.0f}")
    row("a step meanwhile, relative to one without", slowdown)
    row(
        f"{steps} steps with a checkpoint, relative to without",
        lambda k: f"{median(k, lambda leg: leg.total) / total:.2f}",
    )


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="training beside a checkpoint being written")
    parser.add_argument("--override", nargs="+", default=NETWORK, help="fields of vitseg")
    parser.add_argument("--steps", type=int, default=12, help="after each checkpoint")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    config = make_config(
        "vitseg",
        override=tuple(options.override),
        limit=BATCH_SIZE,
        batch_size=BATCH_SIZE,
        image_size=IMAGE_SIZE,
        optimizer="adamw",
        devices=1,
        check_labels=False,
    )
    setup = Setup.of(config)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        with Checkpoints(Path(folder), setup.identity()) as checkpoints:
            trainer = Trainer(setup, checkpoints)
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(trainer.state))
            parameters = setup.program.parameters
            print(f"{parameters / 1e6:.1f} M parameters, a checkpoint of {size / 1e6:.0f} MB.")
            for kind in KINDS:
                trainer.leg(1, kind)
            legs: dict[str, list[Leg]] = {kind: [] for kind in KINDS}
            for number in range(options.rounds):
                for kind in KINDS[number % 3 :] + KINDS[: number % 3]:
                    legs[kind].append(trainer.leg(options.steps, kind))
    report(legs, options.steps)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax wonders that somebody waits for it
    main()
