"""A training run from its settings to its result."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from rich.console import Console

from flaxseg import distributed, native
from flaxseg.errors import ConfigError, FlaxsegError, TrainingError
from flaxseg.inference.metrics import scores_table
from flaxseg.inference.opening import MODEL_FOLDER
from flaxseg.pictures import contact_sheet, write_image
from flaxseg.pictures.overlay import stretched
from flaxseg.printed import print_line
from flaxseg.training import processes, workdir
from flaxseg.training.beginning import draw_beginning
from flaxseg.training.checkpoints import Checkpoints, History, Snapshot
from flaxseg.training.compile_cache import keep_programs
from flaxseg.training.config import TrainConfig, resolved
from flaxseg.training.ending import Ending, is_still_over
from flaxseg.training.feed import Feed
from flaxseg.training.interrupt import Stopped, StopSignal
from flaxseg.training.logging import SCORE_COLUMNS, RunLog, more_columns
from flaxseg.training.monitor import Monitor, Reading
from flaxseg.training.program import peak_memory
from flaxseg.training.progress import TrainingProgress
from flaxseg.training.resuming import find_changes, had_evaluation
from flaxseg.training.runs.page import write_page
from flaxseg.training.samples import SAMPLES_FILE, SampleFile
from flaxseg.training.setup import Setup
from flaxseg.training.start import Reader, Start
from flaxseg.training.step import TrainState
from flaxseg.training.told import farewell, print_settings, summary
from flaxseg.training.wandb_log import WandbLog, check_wandb
from flaxseg.training.workdir import FitResult

OVERLAY_EXAMPLES = 4


def fit(
    config: TrainConfig, console: Console | None = None, *, reader: Reader | None = None
) -> FitResult:
    """Trains a network, or resumes its training where the work directory left off.

    On the CPU an interrupted and resumed run ends with the same bits as one that was not.

    Args:
        config: settings.
        console: where progress is shown, standard output by default.
        reader: reads the checkpoint of `config.init`, such as `convert.start_from`.

    Returns:
        How the run ended; a run that was finished before is only reported.

    Raises:
        FlaxsegError: whatever the caller can mend: settings, data, a work directory of another
            run, a damaged checkpoint, or a loss that is not finite.
    """
    console = processes.quiet_unless_first(console)
    config = resolved(config).validate()
    keep_programs(config)
    changed = workdir.check_workdir(config)
    check_wandb(config.wandb)
    result = workdir.read_result(config.directory)
    if result is not None and not changed and is_still_over(result.ended_by, config):
        print_line(console, f"{config.directory} is finished: {summary(result)}")
        return result
    with StopSignal() as stop:
        setup = Setup.of(config)
        if result is not None and setup.total_steps <= result.step:
            raise _ended(config, result.step, setup.total_steps)
        start = functools.cache(lambda: _read_start(setup, reader))
        if workdir.is_new(config):
            start()  # before anything is written: it may not fit
        processes.check_settings(config)
        stop.join(setup.mesh)
        notify = functools.partial(print_line, console)
        with processes.open_workdir(config, setup.mesh, notify):
            print_settings(setup, console)
            folder = config.directory / workdir.CHECKPOINTS
            with Checkpoints(folder, setup.identity()) as checkpoints:
                if stop.requested():
                    result = _untouched(config, checkpoints)
                else:
                    result = _Run(setup, checkpoints, stop, console, start).train()
    print_line(console, farewell(result, stop.name))
    return result


class _Run:
    """The state of the loop; `train` tells its story."""

    def __init__(
        self,
        setup: Setup,
        checkpoints: Checkpoints,
        stop: StopSignal,
        console: Console,
        start: Callable[[], Start | None],
    ):
        self.setup, self.config = setup, setup.config
        self.checkpoints, self.stop, self.console = checkpoints, stop, console
        snapshot = checkpoints.restore(setup.abstract_state(), self._notify) or self._begin(start())
        self.state, self.position, self.history, run = snapshot
        self.step = int(self.state.step)
        self.origin = workdir.read_origin(self.config) if distributed.is_first() else ()
        self._go_on(run)
        # The evaluation of a checkpoint's step is repeated: it cannot be known to be whole.
        self.evaluates_again = had_evaluation(run, self.step) or self.history.ended == self.step
        self.ending = Ending(self.config, setup.mesh, setup.total_steps, self.history.seconds)
        self.feed = Feed(setup.datasets.train_batches, setup.mesh, self.position)
        self.monitor = Monitor()
        self.metrics: dict[str, float | None] = {}
        self.last_save = time.monotonic()
        self.is_due = processes.known_to_all(setup.mesh)
        self.log = self._open_log() if distributed.is_first() else processes.NoLog()
        self.samples = self._open_samples() if self.config.log_samples else None
        self.progress = TrainingProgress(
            console,
            start=self.step,
            total=setup.total_steps,
            epochs=setup.epochs,
            batch_size=self.config.images_per_step,
        )

    def _open_log(self) -> RunLog:
        return RunLog(
            self.config.directory,
            self.setup.datasets.val.labels.classes,
            log_every=self.config.log_every,
            total_steps=self.setup.total_steps,
            start=self.step,
            losses=self.history.losses,
            accuracies=self.history.accuracies,
            terms=self.history.terms,
            more=more_columns(self.config, self.setup.objective.terms),
            wandb=WandbLog.of(self.config),
        )

    def _open_samples(self) -> SampleFile | None:
        path = self.config.directory / SAMPLES_FILE
        return SampleFile(path, self.step) if distributed.is_first() else None

    def _begin(self, start: Start | None) -> Snapshot:
        lines = start.report(self.setup.preprocess) if start else []
        for line in [*lines, *self.setup.frozen.warn(start.whole if start else ())]:
            self._notify(line)
        if start and distributed.is_first():
            workdir.write_origin(self.config, start.origin)
        self.setup.compile_ahead(draws=True)
        return Snapshot(self.setup.init(start), None, History(), {})

    def _go_on(self, run: Mapping[str, Any]) -> None:
        """Takes up the work directory with these settings, and tells in what they are others.

        Args:
            run: identity of the run that wrote the checkpoint.
        """
        setup, step = self.setup, self.step
        if step > setup.total_steps:
            raise _ended(self.config, step, setup.total_steps)
        changes = find_changes(run, setup.identity()) if run else []
        processes.record_changes(self.config, step, changes)
        if not run:
            return
        self._notify(f"resuming {self.config.directory} at step {step}")
        for change in changes:
            self._notify(f"{change} from step {step} on")
        if any(not change.scored for change in changes):
            rate = np.asarray(setup.schedule(step)).item()
            self._notify(
                f"the schedule is that of a whole run of {setup.total_steps} steps with these "
                f"settings: the next learning rate is {rate:.3g}"
            )
        if any(change.scored for change in changes) and self.history.best_miou is not None:
            self.history = dataclasses.replace(
                self.history, best_miou=None, best_step=None, waited=0
            )
            self._notify("scores from before cannot be compared: the best model is chosen anew")

    def train(self) -> FitResult:
        """Steps, checkpoints and evaluations until the end or a request to stop."""
        end = min(self.setup.total_steps, self.config.max_steps or self.setup.total_steps)
        with self.log, self.progress:
            try:
                if self.evaluates_again or self._evaluation_is_due():
                    self._evaluate()
                self.stop.check()
                if self.step < end and not self.ending.by:
                    self.setup.compile_ahead()
                    if distributed.is_first():
                        draw_beginning(
                            self.config, self.setup.datasets, self.feed, self.step, self._notify
                        )
                    self._notify(self.setup.program.summary())
                    self.progress.pause()
                while self.step < end and not self.ending.by:
                    self.stop.check()
                    self._train_one()
                    self.ending.check_clock(self.step)
                    if self.setup.calendar.ends_epoch(self.step) or self._checkpoint_is_due():
                        self._save()
                    if self.setup.calendar.ends_epoch(self.step):
                        self.progress.end_epoch(self.setup.calendar.epoch(self.step), peak_memory())
                    if self._evaluation_is_due():
                        self._evaluate()
            except Stopped:
                pass
            self._save()
            self.checkpoints.wait()
        if self.ending.by:
            self._notify(self.ending.reason)
        return self._result()

    def _train_one(self) -> None:
        fed = self.feed.take()
        self.state, metrics = self.setup.program(self.state, fed.image, fed.label)
        self.step, self.position = self.step + 1, fed.position
        self.feed.prefetch()
        self._record(self.monitor.push(self.step, metrics, fed.index))

    def _record(self, reading: Reading | None) -> None:
        """Logs a step, and makes sure that it may be built upon."""
        if reading is None:
            return
        if not reading.finite:
            raise self._not_finite(reading)
        if self.config.log_samples:
            index = distributed.joined_parts(reading.index)
            if self.samples is not None:
                self.samples.write(reading.step, index)
        epoch = self.setup.calendar.epoch(reading.step)
        mean_loss = self.log.step(reading, epoch)
        self.progress.step(reading, epoch, mean_loss)
        if mean_loss is not None and self.progress.images_per_second:
            self.log.speed(self.progress.images_per_second, reading.step)

    def _checkpoint_is_due(self) -> bool:
        if self.ending.by:
            return True
        every = 60 * self.config.checkpoint_every
        return every == 0 or self.is_due(time.monotonic() - self.last_save >= every)

    def _save(self) -> None:
        # The state is saved only once its own step is known to be finite.
        self._record(self.monitor.flush())
        losses, accuracies = tuple(self.log.losses), tuple(self.log.accuracies)
        terms = {name: tuple(values) for name, values in self.log.terms.items()}
        self.history = dataclasses.replace(
            self.history,
            losses=losses,
            accuracies=accuracies,
            terms=terms,
            ended=self.step if self.ending.by else None,
            seconds=self.ending.seconds,
        )
        if self.step > 0:
            self.checkpoints.save(self.step, self.state, self.position, self.history)
        self.last_save = time.monotonic()

    def _evaluation_is_due(self) -> bool:
        return bool(self.ending.by) or self.setup.calendar.wants_evaluation(self.step)

    def _evaluate(self) -> None:
        datasets, labels = self.setup.datasets, self.setup.datasets.val.labels
        batches = self.stop.guard(datasets.val_batches)
        shown = self.setup.evaluated(self.state, self.stop.guard)
        scores, predictions = self.setup.evaluator(
            shown.params, shown.stats, batches, keep=self._examples()
        )
        epoch = self.setup.calendar.epoch(self.step)
        self.log.scores(scores, self.step, epoch)
        values = scores.to_dict()
        self.metrics = {name: values[name] for name in (*SCORE_COLUMNS, *scores.more)}
        self.console.print(scores_table(scores, labels))
        self._draw_overlays(predictions, epoch)
        self._keep_if_best(shown, self.metrics["miou"] or 0.0)
        self.ending.check_scores(self.step, self.history.waited, self.history.best_step)
        self.progress.pause()

    def _examples(self) -> list[int]:
        """The validation pictures that are drawn, spread: neighbours are often of one film."""
        count = len(self.setup.datasets.val)
        return np.linspace(0, count - 1, min(OVERLAY_EXAMPLES, count)).astype(int).tolist()

    def _draw_overlays(self, predictions: dict[int, np.ndarray], epoch: int) -> None:
        if not distributed.is_first():
            return
        datasets, chosen = self.setup.datasets, sorted(predictions)
        examples = [datasets.eval_transform(datasets.val[i]) for i in chosen]
        sheet = contact_sheet(
            [stretched(example.image, example.label.shape) for example in examples],
            [example.label for example in examples],
            [predictions[i] for i in chosen],
            datasets.val.labels,
            captions=[datasets.val.name(i) for i in chosen],
        )
        folder = self.config.directory / workdir.OVERLAYS
        folder.mkdir(exist_ok=True)
        write_image(folder / f"epoch_{epoch:03d}.png", sheet)

    def _keep_if_best(self, shown: TrainState, miou: float) -> None:
        best, waited = self.history.best_miou, self.history.waited
        if best is not None and miou <= best:
            self.history = dataclasses.replace(self.history, waited=waited + 1)
            return
        self.history = dataclasses.replace(
            self.history, best_miou=miou, best_step=self.step, waited=0
        )
        self.checkpoints.save_best(self.step, self.state, self.position, self.history)
        model = self.setup.model(shown)
        if not distributed.is_first():
            return
        native.save(
            model,
            self.config.directory / MODEL_FOLDER,
            labels=self.setup.datasets.val.labels,
            preprocess=self.setup.preprocess,
            name=self.config.model,
            origin=(*self.origin, self.setup.trained(self.metrics)),
        )

    def _result(self) -> FitResult:
        # Evaluated at the last step: a stop request during that evaluation leaves it undone.
        over = self.step == self.setup.total_steps or bool(self.ending.by)
        finished = over and self.stop.name is None
        result = FitResult(
            best_miou=self.history.best_miou,
            best_step=self.history.best_step,
            step=self.step,
            metrics=self.metrics,
            workdir=self.config.directory,
            finished=finished,
            ended_by=self.ending.by,
        )
        if distributed.is_first():
            self._write_page(result)
            if finished:
                workdir.write_result(result)
        return result

    def _write_page(self, result: FitResult) -> None:
        labels, total = self.setup.datasets.val.labels, self.setup.total_steps
        try:
            write_page(self.config, labels, result, total)
        except (FlaxsegError, OSError) as error:  # No reason to lose a run.
            self._notify(f"{workdir.PAGE_FILE} is left out: {error}")

    def _not_finite(self, reading: Reading) -> TrainingError:
        self.checkpoints.wait()
        source, last = self.setup.datasets.train, self.checkpoints.latest_step
        what = "loss" if not math.isfinite(reading.loss) else "gradient norm"
        value = reading.loss if what == "loss" else reading.grad_norm
        kept = f"the one of step {last} in {self.checkpoints.directory}" if last else "none yet"
        names = ", ".join(source.name(int(i)) for i in reading.index)
        return TrainingError(
            f"the {what} is {value} at step {reading.step} (epoch "
            f"{self.setup.calendar.epoch(reading.step)}); last good checkpoint: {kept}; "
            f"batch: {names}; lower --lr or lengthen --warmup-epochs in a new --workdir, or look "
            "at these files"
        )

    def _notify(self, line: str) -> None:
        print_line(self.console, line)


def _ended(config: TrainConfig, step: int, total: int) -> ConfigError:
    return ConfigError(
        f"--workdir {config.directory} has made {step} steps, and with these settings the run ends "
        f"at step {total}: give more --epochs or --steps"
    )


def _read_start(setup: Setup, reader: Reader | None) -> Start | None:
    if setup.config.init is None:
        return None
    if reader is None:
        raise ConfigError("--init needs something that reads it: fit(reader=convert.start_from)")
    return reader(setup.config.init, setup.model_config, setup.datasets.train.labels)


def _untouched(config: TrainConfig, checkpoints: Checkpoints) -> FitResult:
    """How a run ends that was stopped before it went on."""
    step = checkpoints.latest_step or 0
    return FitResult(None, None, step, {}, config.directory, finished=False)
