"""How a run shows itself while it goes on: a bar on a terminal, lines in a log file."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flaxseg.printed import print_line
from flaxseg.training.monitor import Reading

_SECONDS_BETWEEN_LINES = 5.0


class TrainingProgress:
    """Shows epoch, loss, learning rate, images per second and the time left."""

    def __init__(self, console: Console, *, start: int, total: int, epochs: int, batch_size: int):
        """Shows nothing before the context is entered.

        Args:
            console: where to show it.
            start: number of updates at which the run starts or resumes.
            total: number of updates at its end.
            epochs: number of epochs, for the description.
            batch_size: images per update.
        """
        self.console = console
        self._start, self._total = start, total
        self._epochs, self._batch_size = epochs, batch_size
        self._clock = _Clock()
        self._loss: float | None = None
        self._since, self._steps = time.monotonic(), 0
        self._last_line = -_SECONDS_BETWEEN_LINES
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("compiling", total=total, completed=start, numbers="")

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *exception) -> None:
        self._bar.stop()

    @property
    def images_per_second(self) -> float | None:
        """Speed of the steps alone, without compilation and evaluation; None before the second."""
        return self._clock.rate(self._batch_size)

    def step(self, reading: Reading, epoch: int, mean_loss: float | None) -> None:
        """Takes a step, and the mean loss of the steps before it if they completed a row.

        Off a terminal only rows give lines, and not too many of them.
        """
        self._clock.tick()
        self._steps += 1
        rate = self.images_per_second
        speed = f"{rate:.1f} img/s" if rate else "- img/s"
        if mean_loss is not None:
            self._loss = mean_loss
        loss = reading.loss if self._loss is None else self._loss
        numbers = f"loss {loss:.4f}  lr {reading.lr:.3g}  {speed}"
        where = f"epoch {epoch}/{self._epochs}"
        self._bar.update(self._task, completed=reading.step, description=where, numbers=numbers)
        now = time.monotonic()
        quiet = self.console.is_terminal or now - self._last_line < _SECONDS_BETWEEN_LINES
        if mean_loss is not None and not quiet:
            self._last_line = now
            left = _duration(self._clock.seconds(self._total - reading.step))
            line = f"{where}  step {reading.step}/{self._total}  {numbers}  {left} left"
            print_line(self.console, line)

    def end_epoch(self, epoch: int, peak_memory: int | None) -> None:
        """Tells how long the steps of an epoch took, with the waiting for images among them.

        Args:
            epoch: that ends.
            peak_memory: bytes that were in use on a device, if known.
        """
        seconds, images = time.monotonic() - self._since, self._steps * self._batch_size
        where = f"epoch {epoch}/{self._epochs} took {_duration(seconds)}"
        memory = "" if peak_memory is None else f", peak memory {peak_memory / 2**30:.1f} GiB"
        line = f"{where}, {images / max(seconds, 1e-9):.1f} img/s{memory}"
        print_line(self.console, line)
        self.pause()

    def pause(self) -> None:
        """Keeps what happens until the next step out of the speed."""
        self._clock.pause()
        self._since, self._steps = time.monotonic(), 0


class _Clock:
    """Mean time of the latest steps."""

    def __init__(self):
        self._previous: float | None = None
        self._mean: float | None = None

    def tick(self) -> None:
        now = time.monotonic()
        if self._previous is not None:
            taken = now - self._previous
            self._mean = taken if self._mean is None else 0.9 * self._mean + 0.1 * taken
        self._previous = now

    def pause(self) -> None:
        self._previous = None

    def rate(self, images: int) -> float | None:
        return images / self._mean if self._mean else None

    def seconds(self, steps: int) -> float | None:
        return steps * self._mean if self._mean else None


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
