"""What a run is made of before its first step: data, model, compiled functions."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from flaxseg import data, models
from flaxseg.data.report import absent_classes, understood
from flaxseg.data.statistics import Statistics
from flaxseg.distributed import to_host
from flaxseg.errors import ConfigError
from flaxseg.inference.evaluate import Evaluator, make_evaluator
from flaxseg.inference.more_metrics import parse_metrics
from flaxseg.inference.windows import Windows, make_windows
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import FSDP, choose_devices, gather_for_gradient, make_mesh, state_sharding
from flaxseg.training.augment import make_transform
from flaxseg.training.averaging import Averaging, Swa, make_averaging
from flaxseg.training.batch_statistics import Estimator, make_estimator
from flaxseg.training.config import TrainConfig, parse_overrides, show
from flaxseg.training.losses import Objective
from flaxseg.training.optim import check_combinations, check_parts, make_schedule
from flaxseg.training.optim.configured import configured_optimizer
from flaxseg.training.program import StepProgram
from flaxseg.training.resuming import Calendar
from flaxseg.training.settings.evaluation import check_evaluation
from flaxseg.training.start import Start, replace_weights
from flaxseg.training.step import TrainState, compile_step, init_state, make_train_step


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
        batch_size=config.batch_size,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=config.loader_threads,
    )
    eval_batch_size = config.eval_batch_size or config.batch_size
    return Datasets(
        train,
        val,
        train_batches,
        data.eval_loader(
            val, evaluate, batch_size=eval_batch_size, num_threads=config.loader_threads
        ),
        evaluate,
        data.steps_per_epoch(train, config.batch_size),
        report,
    )


def _open_split(config: TrainConfig, split: str) -> tuple[data.Source, Statistics | None]:
    source = data.open_run_source(
        config.data,
        split,
        data_dir=config.data_dir,
        image_size=config.image_size,
        limit=config.limit,
        on_bad_sample=config.on_bad_sample,
        missing_mask=config.missing_mask,
        max_pixels=config.max_pixels,
    )
    return source, data.count_labels(source) if config.check_labels else None


def _model_config(
    config: TrainConfig, num_classes: int, overrides: dict[str, Any]
) -> models.Config:
    """The network's configuration for these classes and training images."""
    model_config = models.get_config(config.model, num_classes=num_classes, **overrides)
    model_config = model_config.with_image_size(config.image_size)
    try:
        model_config.check_size(config.image_size)
    except ConfigError as error:
        size = show(config.image_size)
        raise ConfigError(f"--image-size {size} with --model {config.model}: {error}") from None
    return model_config


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run, ready for its first step.

    Attributes:
        config: settings.
        datasets: both splits.
        mesh: devices.
        model_config: the network's own settings.
        graphdef: the network in train mode, without its variables.
        tx: optimiser.
        schedule: learning rate by number of updates.
        preprocess: from image bytes to the network's input.
        objective: what is minimised.
        total_steps: length of the run.
        averaging: how an average follows the weights, if one does.
    """

    config: TrainConfig
    datasets: Datasets
    mesh: Mesh
    model_config: models.Config
    graphdef: nnx.GraphDef
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    preprocess: Preprocess
    objective: Objective
    total_steps: int
    averaging: Averaging | None = None

    @classmethod
    def of(cls, config: TrainConfig) -> "Setup":
        """Opens the data and lays out the network, without computing anything yet.

        Raises:
            FlaxsegError: whatever of it does not fit, by the name of its flag or file.
        """
        check_combinations(config)
        check_evaluation(config)
        devices = choose_devices(config.devices, config.batch_size, config.fsdp)
        mesh = make_mesh(devices, config.fsdp)
        check_parts(config, mesh.size)
        overrides = parse_overrides(config.override)
        models.get_config(config.model, **overrides)
        datasets = open_datasets(config)
        parse_metrics(config.metrics, datasets.val.labels)
        num_classes = datasets.train.labels.num_classes
        model_config = _model_config(config, num_classes, overrides)
        model = models.abstract_model(model_config, dtype=jnp.dtype(config.dtype))
        total = config.steps or config.epochs * datasets.steps_per_epoch
        schedule = make_schedule(config, datasets.steps_per_epoch, total)
        return cls(
            config=config,
            datasets=datasets,
            mesh=mesh,
            model_config=model_config,
            graphdef=nnx.split(model, nnx.Param, nnx.BatchStat)[0],
            tx=configured_optimizer(config, schedule, model),
            schedule=schedule,
            preprocess=Preprocess(config.mean, config.std, config.channels),
            objective=Objective.of(
                config,
                labels=datasets.train.labels,
                aux_weights=model_config.aux_weights,
                count=datasets.count_labels,
            ),
            total_steps=total,
            averaging=make_averaging(config, datasets.steps_per_epoch),
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
            "average": type(self.averaging).__name__ if self.averaging else None,
            **self.objective.identity(),
            "settings": self.config.to_json(),
        }

    def init(self, start: Start | None = None) -> TrainState:
        """The state before the first step, made on the devices.

        The same seed gives the same weights on any number of them.

        Args:
            start: weights from elsewhere that take the place of random ones.
        """
        init = jax.jit(self._init, out_shardings=self.sharding)
        state = init.lower().compile(compiler_options=models.quick_compile())()
        if start is None:
            return state
        return replace_weights(
            state,
            start,
            graphdef=self.graphdef,
            tx=self.tx,
            sharding=self.sharding,
            averaging=self.averaging,
        )

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            self._shapes,
            self.sharding,
        )

    @functools.cached_property
    def sharding(self) -> Any:
        """Where every tensor of the state lies, as a tree of its structure."""
        return state_sharding(self._shapes, self.mesh)

    @functools.cached_property
    def _shapes(self) -> Any:
        return jax.eval_shape(self._init)

    def _init(self) -> TrainState:
        rngs = models.params_keys(self.config.seed)
        model = models.build(self.model_config, dtype=jnp.dtype(self.config.dtype), rngs=rngs)
        return init_state(model, self.tx, self.averaging)

    @functools.cached_property
    def train_step(self) -> Any:
        """The jitted training step."""
        split = self.mesh.shape[FSDP] > 1
        step = make_train_step(
            self.graphdef,
            self.tx,
            schedule=self.schedule,
            preprocess=self.preprocess,
            seed=self.config.seed,
            aux_weights=self.objective.aux_weights,
            loss=self.objective.loss,
            accumulate_parts=self.config.accumulate,
            weigh=self.objective.weigh,
            averaging=self.averaging,
            accuracy=self.config.train_accuracy,
            gather=gather_for_gradient(self.sharding.params, self.mesh) if split else None,
            matmul_precision=self.config.matmul_precision,
        )
        return compile_step(step, self.mesh, self.sharding)

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
    def program(self) -> StepProgram:
        """The training step, compiled for the run's batches before the first of them."""
        return StepProgram.of(
            self.train_step,
            self.abstract_state(),
            self.mesh,
            batch_size=self.config.batch_size,
            image_size=self.config.image_size,
        )

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
        )

    @property
    def _windows(self) -> Windows | None:
        return make_windows(self.config.eval_window, self.config.eval_stride)

    def model(self, state: TrainState) -> models.Model:
        """The network with the variables of a state, whole on the host of every process."""
        return nnx.merge(self.graphdef, *to_host((state.params, state.stats)))
