"""What is measured: a pass over images, and a training step, compiled once with what they cost.

Both call what the library itself calls. Weights, images and labels lie on the default device
before; no call moves any.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache

from flaxseg import models
from flaxseg.preprocess import Preprocess
from flaxseg.training.flops import count_flops
from flaxseg.training.program import needed_memory
from flaxseg.training.step import init_state, make_train_step

Mode = Literal["infer", "train"]

RATE, MOMENTUM = 1e-4, 0.9
"""Of the optimiser of a training step, SGD."""


class Batch(NamedTuple):
    """What a program is fed with.

    Attributes:
        images: (B, H, W, 3) uint8.
        labels: class ids (B, H, W) uint8.
    """

    images: np.ndarray
    labels: np.ndarray

    def normalised(self) -> np.ndarray:
        """The images as networks take them, float32."""
        return np.array(Preprocess()(jnp.asarray(self.images)))


def random_batch(config: models.Config, count: int, size: tuple[int, int]) -> Batch:
    """Noise, the same at every call.

    Args:
        config: of the network, whose classes are drawn.
        count: images.
        size: height and width in pixels.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *size, 3), np.uint8)
    return Batch(images, rng.integers(0, config.num_classes, (count, *size), np.uint8))


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a program costs besides its time.

    Attributes:
        trace_seconds: from Python to JAX's own form.
        compile_seconds: from there to machine code, or to the same from a cache on disk.
        flops: operations before XLA optimises, a multiply-add being two; loops count as often as
            they run. None where XLA does not tell, as everywhere below.
        compiled_flops: by XLA's count after it has optimised; loops count once.
        bytes_accessed: read and written, by the same count.
        temporary: bytes of activations and gradients at the moment when they are most.
        memory: bytes of arguments, results and temporaries together.
    """

    trace_seconds: float
    compile_seconds: float
    flops: float | None
    compiled_flops: float | None
    bytes_accessed: float | None
    temporary: int | None
    memory: int | None


class _Program:
    """A function compiled for its arguments.

    Args:
        jitted: the function.
        *arguments: of the shapes that it is compiled for.

    Attributes:
        trace_seconds, compile_seconds: see `Costs`.
    """

    def __init__(self, jitted: Any, *arguments: Any):
        begin = time.perf_counter()
        self._traced = jitted.trace(*arguments)
        end_of_trace = time.perf_counter()
        self._lowered = self._traced.lower()
        self._run = self._lowered.compile()
        end = time.perf_counter()
        self.trace_seconds, self.compile_seconds = end_of_trace - begin, end - end_of_trace

    @functools.cached_property
    def costs(self) -> Costs:
        """What it costs besides its time, counted when first asked for."""
        use, found = self._run.memory_analysis(), self._run.cost_analysis()
        found = found if isinstance(found, dict) else {}
        return Costs(
            trace_seconds=self.trace_seconds,
            compile_seconds=self.compile_seconds,
            flops=count_flops(self._traced, self._lowered, jax.default_backend()),
            compiled_flops=_positive(found.get("flops")),
            bytes_accessed=_positive(found.get("bytes accessed")),
            temporary=None if use is None else use.temp_size_in_bytes,
            memory=needed_memory(self._run),
        )


class Inference(_Program):
    """Normalised images to logits of the images' own height and width.

    Args:
        model: the network.
        batch: what it sees.
    """

    def __init__(self, model: models.Model, batch: Batch):
        graphdef, self._state = nnx.split(models.eval_view(model))

        def forward(state: nnx.State, images: jax.Array) -> jax.Array:
            return nnx.merge(graphdef, state)(images).logits

        self._images = jnp.asarray(batch.normalised())
        super().__init__(jax.jit(forward), self._state, self._images)

    def __call__(self) -> jax.Array:
        """The logits (B, H, W, K), once they are there."""
        return jax.block_until_ready(self._run(self._state, self._images))


class Training(_Program):
    """An optimiser's step as in `flaxseg train`: images and labels as bytes, SGD with momentum.

    Args:
        model: the network, whose own weights stay as they are.
        batch: what every step sees.
    """

    def __init__(self, model: models.Model, batch: Batch):
        model, config = models.train_view(model), model.config
        graphdef = nnx.split(model, nnx.Param, nnx.BatchStat)[0]
        optimizer = optax.sgd(RATE, MOMENTUM)
        step = make_train_step(
            graphdef,
            optimizer,
            schedule=optax.constant_schedule(RATE),
            preprocess=Preprocess(),
            aux_weights=config.aux_weights,
        )
        begin = jax.jit(
            # A step takes the place of the state that it is given.
            lambda model: jax.tree.map(jnp.copy, init_state(model, optimizer)),
            compiler_options=models.quick_compile(),
        )
        self._state = begin(model)
        self._batch = jnp.asarray(batch.images), jnp.asarray(batch.labels)
        super().__init__(jax.jit(step, donate_argnums=0), self._state, *self._batch)

    def __call__(self) -> jax.Array:
        """The loss before an update, once both are there."""
        self._state, metrics = self._run(self._state, *self._batch)
        return jax.block_until_ready((metrics.loss, self._state))[0]


PROGRAMS: dict[Mode, Callable[[models.Model, Batch], Inference | Training]] = {
    "infer": Inference,
    "train": Training,
}


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Lets no program come from the disk: seconds of compiling are those of the compiler."""
    name = "jax_enable_compilation_cache"
    before = getattr(jax.config, name)
    jax.config.update(name, False)
    compilation_cache.reset_cache()  # whether there is one is asked only once
    try:
        yield
    finally:
        jax.config.update(name, before)
        compilation_cache.reset_cache()


def _positive(value: float | None) -> float | None:
    """None also for the negative numbers with which some backends say that they do not know."""
    return value if value is not None and value > 0 else None
