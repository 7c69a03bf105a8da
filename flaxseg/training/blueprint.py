"""What a training step is made of, on given devices: all of a run but its data."""

import contextlib
import dataclasses
import functools
import gc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from flaxseg import models
from flaxseg.data.statistics import Statistics
from flaxseg.errors import ConfigError
from flaxseg.labels import LabelSet
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import FSDP, choose_devices, gather_for_gradient, make_mesh, state_sharding
from flaxseg.training.averaging import Averaging, make_averaging
from flaxseg.training.config import TrainConfig, parse_overrides, show
from flaxseg.training.freezing import Frozen
from flaxseg.training.losses import Objective
from flaxseg.training.optim import check_combinations, check_parts, make_schedule
from flaxseg.training.optim.configured import configured_optimizer
from flaxseg.training.program import StepProgram, trace_step
from flaxseg.training.start import Start, replace_weights
from flaxseg.training.step import TrainState, compile_step, init_state, make_train_step

Compiled = TypeVar("Compiled")


def run_mesh(config: TrainConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The devices of a run, once all that can be refused without its data has been.

    Args:
        config: settings.
        devices: to choose from, by default all there are.

    Raises:
        ConfigError: settings that do not go together, do not fit the network, or that the devices
            cannot share.
    """
    check_combinations(config)
    chosen = choose_devices(config.devices, config.images_per_step, config.fsdp, devices)
    mesh = make_mesh(chosen, config.fsdp)
    check_parts(config, mesh.size)
    models.get_config(config.model, **parse_overrides(config.override))
    return mesh


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """The training step of a run, laid out on devices without computing anything yet.

    Attributes:
        config: settings.
        mesh: devices, which need not be there if the step is only to be compiled.
        model_config: the network's own settings.
        graphdef: the network in train mode, but for what is frozen, without its variables.
        variables: shapes of its parameters and statistics.
        frozen: the weights that do not learn.
        tx: optimiser of the others.
        schedule: learning rate by number of updates.
        preprocess: from image bytes to the network's input.
        objective: what is minimised.
        total_steps: length of the run.
        averaging: how an average follows the weights, if one does.
    """

    config: TrainConfig
    mesh: Mesh
    model_config: models.Config
    graphdef: nnx.GraphDef
    variables: tuple[nnx.State, nnx.State]
    frozen: Frozen
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    preprocess: Preprocess
    objective: Objective
    total_steps: int
    averaging: Averaging | None

    @classmethod
    def lay_out(
        cls,
        config: TrainConfig,
        mesh: Mesh,
        *,
        labels: LabelSet,
        steps_per_epoch: int,
        count: Callable[[], Statistics],
        **more: Any,
    ) -> Self:
        """Lays the network, its optimiser and its loss out.

        Args:
            config: settings.
            mesh: what `run_mesh` gives.
            labels: classes of the training images.
            steps_per_epoch: whole batches in one pass over the training images.
            count: counts the pixels of the training labels, called only if they are needed.
            more: further attributes of a subclass.

        Raises:
            FlaxsegError: whatever of it does not fit, by the name of its flag.
        """
        model_config = _model_config(config, labels.num_classes)
        model = models.abstract_model(model_config, dtype=jnp.dtype(config.dtype))
        frozen = Frozen.of(config.freeze, model)
        graphdef, params, stats = nnx.split(frozen.view(model), nnx.Param, nnx.BatchStat)
        total = config.steps or config.epochs * steps_per_epoch
        schedule = make_schedule(config, steps_per_epoch, total)
        return cls(
            config=config,
            mesh=mesh,
            model_config=model_config,
            graphdef=graphdef,
            variables=(params, stats),
            frozen=frozen,
            tx=configured_optimizer(config, schedule, model),
            schedule=schedule,
            preprocess=Preprocess(config.mean, config.std, config.channels),
            objective=Objective.of(
                config, labels=labels, aux_weights=model_config.aux_weights, count=count
            ),
            total_steps=total,
            averaging=make_averaging(config, steps_per_epoch),
            **more,
        )

    def init(self, start: Start | None = None) -> TrainState:
        """The state before the first step, made on the devices.

        The same seed gives the same weights on any number of them.

        Args:
            start: weights from elsewhere that take the place of random ones.
        """
        state = self._drawing.result()()
        if start is None:
            return state
        return replace_weights(
            state,
            start,
            graphdef=self.graphdef,
            tx=self.tx,
            sharding=self.sharding,
            averaging=self.averaging,
            frozen=self.frozen,
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
        def beginning(*variables: nnx.State) -> TrainState:
            return self._beginning(nnx.merge(self.graphdef, *variables))

        return jax.eval_shape(beginning, *self.variables)

    def _draw(self) -> TrainState:
        rngs = models.params_keys(self.config.seed)
        dtype = jnp.dtype(self.config.dtype)
        return self._beginning(models.build(self.model_config, dtype=dtype, rngs=rngs))

    def _beginning(self, model: models.Model) -> TrainState:
        return init_state(model, self.tx, self.averaging, self.frozen)

    @functools.cached_property
    def train_step(self) -> Any:
        """The jitted training step."""
        split = self.mesh.shape[FSDP] > 1
        learning, _ = self.frozen.split(self.sharding.params)
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
            gather=gather_for_gradient(learning, self.mesh) if split else None,
            matmul_precision=self.config.matmul_precision,
            frozen=self.frozen,
        )
        return compile_step(step, self.mesh, self.sharding)

    def compile_ahead(self, *, draws: bool = False) -> None:
        """Traces the training step, and lets XLA compile it while Python goes on.

        Python does one thing at a time: whatever it did beside tracing would hold the step back.

        Args:
            draws: `init` will be called, whose program is compiled as well.
        """
        with _keeping_all():
            _ = self._compiling
            if draws:
                _ = self._drawing

    @property
    def program(self) -> StepProgram:
        """The training step, compiled for the run's batches before the first of them."""
        return self._compiling.result()

    @functools.cached_property
    def _compiling(self) -> Future[StepProgram]:
        state = self.abstract_state()
        sizes = {"batch_size": self.config.images_per_step, "image_size": self.config.image_size}
        lowered = trace_step(self.train_step, state, self.mesh, **sizes).lower()
        return _in_thread(StepProgram.of, lowered, state)

    @functools.cached_property
    def _drawing(self) -> Future[jax.stages.Compiled]:
        """The program that makes the state before the first step."""
        lowered = jax.jit(self._draw, out_shardings=self.sharding).lower()
        return _in_thread(lowered.compile, models.drawing_compile())


def _in_thread(compiler: Callable[..., Compiled], *args: Any) -> Future[Compiled]:
    """What a compiler makes of something, while Python goes on."""
    worker = ThreadPoolExecutor(1, "compile")
    future = worker.submit(compiler, *args)
    worker.shutdown(wait=False)
    return future


@contextlib.contextmanager
def _keeping_all() -> Iterator[None]:
    """Python looks for no garbage meanwhile, as there is little: what tracing makes is kept."""
    looks = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looks:
            gc.enable()


def _model_config(config: TrainConfig, num_classes: int) -> models.Config:
    """The network's configuration for these classes and training images."""
    overrides = parse_overrides(config.override)
    model_config = models.get_config(config.model, num_classes=num_classes, **overrides)
    model_config = model_config.with_image_size(config.image_size)
    try:
        model_config.check_size(config.image_size)
    except ConfigError as error:
        size = show(config.image_size)
        raise ConfigError(f"--image-size {size} with --model {config.model}: {error}") from None
    return model_config
