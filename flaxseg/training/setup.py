"""What a run is made of before its first step: a blueprint, its data, compiled functions."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from flaxseg import data, models
from flaxseg.data.report import absent_classes, understood
from flaxseg.data.statistics import Statistics
from flaxseg.distributed import to_host
from flaxseg.inference.canvas import Canvases
from flaxseg.inference.evaluate import Evaluator, make_evaluator
from flaxseg.inference.more_metrics import parse_metrics
from flaxseg.inference.windows import Windows, make_windows
from flaxseg.origin import Origin
from flaxseg.training.augment import make_transform
from flaxseg.training.averaging import Swa
from flaxseg.training.batch_statistics import Estimator, make_estimator
from flaxseg.training.blueprint import Blueprint, run_mesh
from flaxseg.training.config import TrainConfig
from flaxseg.training.resuming import Calendar
from flaxseg.training.settings.evaluation import check_evaluation
from flaxseg.training.step import TrainState


@dataclasses.dataclass(frozen=True)
class Datasets:
    """The two splits of a run and how they are loaded.

    Attributes:
        train: training examples.
        val: validation examples.
        train_batches: endless training batches.
        val_batches: every validation example once.
        eval_transform: what the validation examples go through.
        steps_per_epoch: whole batches in one pass over the training examples.
        train_labels: what the training labels hold, if they were checked.
    """

    train: data.Source
    val: data.Source
    train_batches: Any
    val_batches: data.EvalLoader
    eval_transform: data.EvalTransform
    steps_per_epoch: int
    train_labels: Statistics | None

    def count_labels(self) -> Statistics:
        """What the training labels hold; reads them if that has not been done."""
        return self.train_labels or data.count_labels(self.train)

    def notes(self) -> list[str]:
        """How the files were understood, and which classes they lack, for the user to read."""
        splits = {"train": self.train, "val": self.val}
        known = {split: getattr(source, "statistics", None) for split, source in splits.items()}
        counts = {split: counted for split, counted in known.items() if counted is not None}
        absent = absent_classes(self.train.labels, counts) if "train" in counts else []
        return understood(splits.values()) + absent

    def list_skipped(self, config: TrainConfig) -> list[str]:
        """Lists in the work directory what the splits go without; see `data.skipped`."""
        return data.list_skipped((self.train, self.val), config.directory)


def open_datasets(config: TrainConfig) -> Datasets:
    """Opens both splits and, if asked, checks every label.

    Raises:
        DataError: a folder, file or label that does not fit.
        ConfigError: a setting that does not fit the data.
    """
    (train, report), (val, _) = (_open_split(config, split) for split in ("train", "val"))
    evaluate = data.EvalTransform(
        config.eval_size, config.interpolation, config.eval_base_size, config.eval_multiple
    )
    train_batches = data.train_loader(
        data.KeptExamples(train, config.keep_decoded * 2**30),
        make_transform(config, train),
        batch_size=config.images_per_step,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=config.loader_threads,
    )
    eval_batch_size = config.eval_batch_size or config.images_per_step
    return Datasets(
        train,
        val,
        train_batches,
        data.eval_loader(
            val,
            evaluate,
            batch_size=eval_batch_size,
            num_threads=config.loader_threads,
            few_programs=config.eval_canvas or config.eval_window is not None,
        ),
        evaluate,
        data.steps_per_epoch(train, config.images_per_step),
        report,
    )


def open_source(config: TrainConfig, split: str) -> data.Source:
    """A split of a run, of which no label has been checked.

    Raises:
        DataError: a folder or file that does not fit.
    """
    return data.open_run_source(
        config.data,
        split,
        data_dir=config.data_dir,
        image_size=config.image_size,
        limit=config.limit,
        on_bad_sample=config.on_bad_sample,
        missing_mask=config.missing_mask,
        max_pixels=config.max_pixels,
    )


def _open_split(config: TrainConfig, split: str) -> tuple[data.Source, Statistics | None]:
    source = open_source(config, split)
    return source, data.count_labels(source) if config.check_labels else None


@dataclasses.dataclass(frozen=True)
class Setup(Blueprint):
    """A run, ready for its first step: a `Blueprint` with its data.

    Attributes:
        datasets: both splits.
    """

    datasets: Datasets

    @classmethod
    def of(cls, config: TrainConfig) -> "Setup":
        """Opens the data and lays out the network, without computing anything yet.

        Raises:
            FlaxsegError: whatever of it does not fit, by the name of its flag or file.
        """
        mesh = run_mesh(config)
        check_evaluation(config)
        datasets = open_datasets(config)
        parse_metrics(config.metrics, datasets.val.labels)
        return cls.lay_out(
            config,
            mesh,
            labels=datasets.train.labels,
            steps_per_epoch=datasets.steps_per_epoch,
            count=datasets.count_labels,
            datasets=datasets,
        )

    @property
    def epochs(self) -> int:
        """Number of epochs begun in the whole run."""
        return self.calendar.epoch(self.total_steps)

    @functools.cached_property
    def calendar(self) -> Calendar:
        """Which steps are special."""
        return Calendar.of(self.config, len(self.datasets.train))

    def identity(self) -> dict[str, Any]:
        """What tells a run from others, as JSON values: every checkpoint holds it."""
        return {
            "model": self.config.model,
            "model_config": models.config_to_json(self.model_config),
            "classes": list(self.datasets.train.labels.classes),
            "training_images": len(self.datasets.train),
            "validation_images": len(self.datasets.val),
            "optimizer": self.config.optimizer,
            "momentum": self.config.momentum,
            "weight_decay": self.config.weight_decay,
            "frozen": sorted(self.frozen.keys) or None,
            "average": type(self.averaging).__name__ if self.averaging else None,
            **self.objective.identity(),
            "settings": self.config.to_json(),
        }

    @functools.cached_property
    def _estimator(self) -> Estimator:
        return make_estimator(
            self.graphdef,
            self.preprocess,
            self.mesh,
            aux=bool(self.objective.aux_weights),
            seed=self.config.seed,
        )

    def evaluated(self, state: TrainState, guard: Callable[[Any], Any] = iter) -> TrainState:
        """The state with the weights in it that are to be evaluated and saved: the average, if any.

        From the start of stochastic weight averaging on, BatchNorm's statistics are those of one
        pass over the training images, in the order of the first epoch.

        Args:
            state: after a step.
            guard: wraps the batches of that pass, such as `StopSignal.guard`.
        """
        if state.average is None:
            return state
        params, stats = state.average
        averaging, epoch = self.averaging, self.datasets.steps_per_epoch
        if isinstance(averaging, Swa) and int(state.step) >= averaging.start:
            batches = itertools.islice(self.datasets.train_batches, epoch)
            stats = self._estimator(params, stats, guard(batches))
        return dataclasses.replace(state, params=params, stats=stats)

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """The compiled evaluation; it multiplies exactly, whatever the training does."""
        return make_evaluator(
            self.graphdef,
            self.datasets.val.labels,
            self.preprocess,
            self.mesh,
            windows=self._windows,
            metrics=self.config.metrics,
            canvases=self._canvases,
        )

    @property
    def _canvases(self) -> Canvases | None:
        if not self.config.eval_canvas or self.config.eval_size is not None:
            return None
        return Canvases.seen(self.config.eval_base_size, self.config.eval_multiple)

    @property
    def _windows(self) -> Windows | None:
        return make_windows(self.config.eval_window, self.config.eval_stride)

    def trained(self, scores: Mapping[str, float | None]) -> Origin:
        """The training as a step on the way of its weights.

        Args:
            scores: of the validation images; None is not told.
        """
        return Origin(
            data=self._data_name,
            fingerprint=self._fingerprint,
            recipe=self.config.recipe,
            scores={name: value for name, value in scores.items() if value is not None},
        )

    @property
    def _data_name(self) -> str:
        folder = self.config.data_dir if self.config.data == "folder" else None
        return f"folder {Path(folder).resolve().name}" if folder else self.config.data

    @functools.cached_property
    def _fingerprint(self) -> str:
        """Of the training images; empty where nobody has counted their labels."""
        counted, train = self.datasets.train_labels, self.datasets.train
        return "" if counted is None else data.content_fingerprint(train, counted)

    def model(self, state: TrainState) -> models.Model:
        """The network with the variables of a state, whole on the host of every process."""
        return nnx.merge(self.graphdef, *to_host((state.params, state.stats)))
