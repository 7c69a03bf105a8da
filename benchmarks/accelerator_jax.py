"""The Flax side of `accelerator.py`."""

import collections
import concurrent.futures
import re
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

from flaxseg import models
from flaxseg.ops.pixels import Pixels

OPTIMIZER = optax.sgd(1e-3, momentum=0.9)

LARGE = 16
"""Pixels of a convolution's window, on each side, beyond those of any network's kernel."""

Line = dict[str, Any]


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
        slowest, median = (amount * rate for rate in clock.rates(turn(program, x)))
        append(out, ceiling=when, what=what, min=slowest, median=median, **machine())


def network(job: Job) -> None:
    """Forward pass, training step and difference from float64: a deadline costs that first."""
    model = fresh(job)
    graphdef, params, stats = nnx.split(models.train_view(model), nnx.Param, nnx.BatchStat)
    weights = jax.tree.map(_randomised, (params, stats))
    del model, params, stats
    on_host = jax.device_get(weights)
    images, labels = job.arrays()
    inputs = weights, jnp.asarray(images)
    state, step = (*weights, OPTIMIZER.init(weights[0])), training_step(job, graphdef)
    batch = inputs[1], jnp.asarray(labels, jnp.uint8), jax.random.key(0)
    lowered = jax.jit(_forward(graphdef)).lower(*inputs), step.lower(*state, *batch)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        forward, training = pool.map(compiled, lowered)
    logits = np.asarray(forward[0](*inputs)[:1])
    job.speed("forward", turn(forward[0], *inputs), peak=_peak, **forward[1])
    del weights, inputs
    job.speed("training", _steps(training[0], state, batch), peak=_peak, **training[1])
    del state
    expected = reference(job.config, on_host, images[:1])
    job.write(what="difference", difference=_apart(logits, expected))


def fresh(job: Job) -> models.Model:
    """A new network in the job's precision."""
    dtype = jnp.bfloat16 if job.precision == "bfloat16" else jnp.float32
    model = models.fresh_model(job.config, dtype=dtype, rngs=nnx.Rngs(0))
    return models.with_precision(model, "highest" if job.precision == "exact" else "default")


def training_step(job: Job, graphdef: Any) -> Any:
    """A jitted step from parameters, statistics, moments and a batch to the first three."""

    def loss(params: Any, stats: Any, images: jax.Array, labels: jax.Array, key: jax.Array):
        model = nnx.merge(graphdef, params, stats, copy=True)
        corners = _corners(model, (labels.shape[1], labels.shape[2]))
        small = {} if corners is None else {"resize": False}
        output = model(images, aux=True, rngs=nnx.Rngs(dropout=key), **small)
        heads = zip((1, *job.config.aux_weights), (output.logits, *output.aux), strict=True)
        total = sum(weight * _cross_entropy(scores, labels, corners) for weight, scores in heads)
        return total, nnx.state(model, nnx.BatchStat)

    def step(params: Any, stats: Any, moments: Any, *batch: jax.Array) -> Any:
        gradients, stats = jax.grad(loss, has_aux=True)(params, stats, *batch)
        updates, moments = OPTIMIZER.update(gradients, moments, params)
        return optax.apply_updates(params, updates), stats, moments

    return jax.jit(step, donate_argnums=(0, 1, 2))


def _steps(program: Callable[..., Any], state: Any, batch: Any) -> Callable[[int], None]:
    """Steps one after the other; the state is given away."""

    def run(calls: int) -> None:
        nonlocal state
        for _ in range(calls):
            state = program(*state, *batch)
        jax.block_until_ready(state)

    return run


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


def _corners(model: Any, size: tuple[int, int]) -> bool | None:
    """How the loss interpolates logits, where a network leaves that to it, as a training step."""
    rule = getattr(model, "logits_align_corners", None)
    return None if rule is None else rule(size)


def _cross_entropy(scores: jax.Array, labels: jax.Array, corners: bool | None) -> jax.Array:
    pixels = Pixels.of(scores, labels, bool(corners))
    return pixels.cross_entropy(jnp.full(labels.shape, 1 / labels.size))


def _randomised(x: jax.Array) -> jax.Array:
    """Gains, biases, gates and statistics away from their defaults, variances positive."""
    if x.ndim != 1:
        return x
    return x + 0.1 * abs(jax.random.normal(jax.random.key(x.size), x.shape, x.dtype))


def _apart(logits: np.ndarray, expected: np.ndarray) -> float:
    assert expected.dtype == np.float64
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def compiled(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, Line]:
    """The program, and what is told of it: seconds of compiling, library calls, large windows."""
    start = time.perf_counter()
    ready = lowered.compile()
    seconds, text = time.perf_counter() - start, ready.as_text() or ""
    calls = collections.Counter(re.findall(r'custom_call_target="([^"]+)"', text))
    sides = re.findall(r"window=\{size=(\d+)x(\d+)", text)
    large = sum(min(map(int, side)) > LARGE for side in sides)
    return ready, {"compile_seconds": seconds, "calls": dict(calls), "large_windows": large}


def turn(program: Callable[..., Any], *inputs: Any) -> Callable[[int], None]:
    """Calls of a program, all of which are over when it returns."""

    def run(calls: int) -> None:
        for _ in range(calls):
            result = program(*inputs)
        jax.block_until_ready(result)

    return run


def _peak() -> int | None:
    """Most bytes of the device in use so far; None where JAX does not count them."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
