"""The Flax side of `accelerator.py`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from accelerator_job import Clock, Job, append
from flax import nnx
from jax import numpy as jnp

from flaxseg import models, ops
from flaxseg.ops.pixels import Pixels

OPTIMIZER = optax.sgd(1e-3, momentum=0.9)


def machine() -> dict[str, str]:
    """What every line tells of the device and the framework."""
    return {"side": "jax", "device": jax.devices()[0].device_kind, "version": jax.__version__}


def ceiling(when: str, tiny: bool, clock: Clock, out: Path) -> None:
    """What the device reaches without a network: a matrix product in bfloat16, and a copy."""
    side, length = (64, 1 << 12) if tiny else (8192, 1 << 28)
    square, vector = jnp.ones((side, side), jnp.bfloat16), jnp.ones(length, jnp.float32)
    for what, program, x, amount in (
        ("TFLOP/s", jax.jit(lambda x: x @ x), square, 2e-12 * side**3),
        ("TB/s", jax.jit(lambda x: x + 1), vector, 8e-12 * length),
    ):
        slowest, median = (amount * rate for rate in clock.rates(_turn(program, x)))
        append(out, ceiling=when, what=what, min=slowest, median=median, **machine())


def network(job: Job) -> None:
    """Forward pass, training step and difference from float64: a deadline costs that first."""
    model = fresh(job)
    graphdef, params, stats = nnx.split(models.train_view(model), nnx.Param, nnx.BatchStat)
    weights = jax.tree.map(_randomised, (params, stats))
    del model, params, stats
    on_host = jax.device_get(weights)
    images, labels = job.arrays()
    logits = forward_pass(job, graphdef, weights, images)
    training_step(job, graphdef, weights, images, labels)
    expected = reference(job.config, on_host, images[:1])
    job.write(what="difference", difference=_apart(logits, expected))


def fresh(job: Job) -> models.Model:
    """A new network in the job's precision."""
    dtype = jnp.bfloat16 if job.precision == "bfloat16" else jnp.float32
    model = models.fresh_model(job.config, dtype=dtype, rngs=nnx.Rngs(0))
    return models.with_precision(model, "highest" if job.precision == "exact" else "default")


def forward_pass(job: Job, graphdef: Any, weights: Any, images: np.ndarray) -> np.ndarray:
    """Measures it; returns the logits of the first image."""
    inputs = weights, jnp.asarray(images)
    program, seconds = _compiled(jax.jit(_forward(graphdef)), *inputs)
    job.speed("forward", _turn(program, *inputs), peak=_peak, compile_seconds=seconds)
    return np.asarray(program(*inputs)[:1])


def training_step(
    job: Job, graphdef: Any, weights: Any, images: np.ndarray, labels: np.ndarray
) -> None:
    """Measures it; the weights are given to the device and gone afterwards."""
    batch = jnp.asarray(images), jnp.asarray(labels, jnp.uint8), jax.random.key(0)

    def loss(params: Any, stats: Any, images: jax.Array, labels: jax.Array, key: jax.Array):
        model = nnx.merge(graphdef, params, stats, copy=True)
        output = model(images, aux=True, rngs=nnx.Rngs(dropout=key))
        heads = zip((1, *job.config.aux_weights), (output.logits, *output.aux), strict=True)
        total = sum(weight * _cross_entropy(scores, labels) for weight, scores in heads)
        return total, nnx.state(model, nnx.BatchStat)

    def step(params: Any, stats: Any, moments: Any, *batch: jax.Array) -> Any:
        gradients, stats = jax.grad(loss, has_aux=True)(params, stats, *batch)
        updates, moments = OPTIMIZER.update(gradients, moments, params)
        return optax.apply_updates(params, updates), stats, moments

    params, stats = weights
    state = params, stats, OPTIMIZER.init(params)
    program, seconds = _compiled(jax.jit(step, donate_argnums=(0, 1, 2)), *state, *batch)

    def turn(calls: int) -> None:
        nonlocal state
        for _ in range(calls):
            state = program(*state, *batch)
        jax.block_until_ready(state)

    job.speed("training", turn, peak=_peak, compile_seconds=seconds)


def reference(config: models.Config, weights: Any, images: np.ndarray) -> np.ndarray:
    """The logits that the CPU computes in float64."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        empty = models.abstract_model(config, dtype=jnp.float64, param_dtype=jnp.float64)
        wide, images = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (weights, images))
        program = _forward(nnx.split(models.train_view(empty), nnx.Param, nnx.BatchStat)[0])
        return np.asarray(jax.jit(program)(wide, images))


def _forward(graphdef: Any) -> Callable[[Any, jax.Array], jax.Array]:
    def forward(weights: Any, images: jax.Array) -> jax.Array:
        return models.eval_view(nnx.merge(graphdef, *weights))(images).logits

    return forward


def _cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    size = (labels.shape[1], labels.shape[2])
    scores = ops.resize_bilinear(scores, size, align_corners=False)
    return Pixels.of(scores, labels).surprise().mean()


def _randomised(x: jax.Array) -> jax.Array:
    """Gains, biases, gates and statistics away from their defaults, variances positive."""
    if x.ndim != 1:
        return x
    return x + 0.1 * abs(jax.random.normal(jax.random.key(x.size), x.shape, x.dtype))


def _apart(logits: np.ndarray, expected: np.ndarray) -> float:
    assert expected.dtype == np.float64
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def _compiled(program: Any, *inputs: Any) -> tuple[Callable[..., Any], float]:
    start = time.perf_counter()
    return program.lower(*inputs).compile(), time.perf_counter() - start


def _turn(program: Callable[..., Any], *inputs: Any) -> Callable[[int], None]:
    def turn(calls: int) -> None:
        for _ in range(calls):
            result = program(*inputs)
        jax.block_until_ready(result)

    return turn


def _peak() -> int | None:
    """Most bytes of the device in use so far; None where JAX does not count them."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
