"""What `accelerator.py` measures in one process, the same for both frameworks."""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flaxseg import models


@dataclasses.dataclass(frozen=True)
class Job:
    """One network in one precision.

    Attributes:
        name: of the network.
        precision: "exact", "default" or "bfloat16".
        config: of the network.
        batch: images of a batch.
        size: their height and width in pixels.
        clock: how speed is measured.
        out: the file of results.
        about: further entries of every line, such as the device.
    """

    name: str
    precision: str
    config: models.Config
    batch: int
    size: tuple[int, int]
    clock: "Clock"
    out: Path
    about: dict[str, Any]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Normal images (B, H, W, 3) in float32 and class ids (B, H, W)."""
        rng = np.random.default_rng(0)
        images = rng.standard_normal((self.batch, *self.size, 3), np.float32)
        return images, rng.integers(0, self.config.num_classes, (self.batch, *self.size))

    def speed(
        self, what: str, run: Callable[[int], Any], peak: Callable[[], int | None], **found: Any
    ) -> None:
        """Writes down images per second of `run`, see `Clock.rates`, and the bytes in use."""
        slowest, median = (self.batch * rate for rate in self.clock.rates(run))
        self.write(what=what, min=slowest, median=median, peak=peak(), **found)

    def write(self, **found: Any) -> None:
        """Appends a line to the file of results."""
        task = {"network": self.name, "precision": self.precision, "batch": self.batch}
        append(self.out, **task, size=self.size, **self.about, **found)


@dataclasses.dataclass(frozen=True)
class Clock:
    """How speed is measured.

    Attributes:
        repeats: timed turns.
        turn: seconds of one, about.
    """

    repeats: int
    turn: float

    def rates(self, run: Callable[[int], Any]) -> tuple[float, float]:
        """Calls per second of the slowest turn and the median; `run(n)` waits for its n calls."""
        run(1)  # chooses algorithms
        calls = min(200, max(1, round(self.turn / _seconds(run, 1))))
        found = [calls / _seconds(run, calls) for _ in range(self.repeats)]
        return min(found), statistics.median(found)


def _seconds(run: Callable[[int], Any], calls: int) -> float:
    start = time.perf_counter()
    run(calls)
    return time.perf_counter() - start


def append(out: Path, **line: Any) -> None:
    """Adds a line to the file of results."""
    with open(out, "a") as file:
        file.write(json.dumps(line) + "\n")
