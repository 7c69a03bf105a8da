import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from small_training import OVERRIDES

from flaxseg.models import abstract_model, build, get_config
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import make_mesh, put_batch, replicated
from flaxseg.training.optim import make_optimizer
from flaxseg.training.step import compile_step, init_state, make_train_step

SCHEDULE = optax.constant_schedule(0.01)
FAST_COMPILE = {"xla_backend_optimization_level": 0}
TWO_STAGES = {
    "backbone.blocks": (1, 1),
    "backbone.strides": (1, 2),
    "backbone.dilations": (1, 1),
    "backbone.first_dilations": (1, 1),
}
AUX = {"aux_channels": 8, "aux_weights": (0.4,), "dropout": 0.5}


def batches(count, batch_size=8, size=24):
    rng = np.random.default_rng(0)
    for _ in range(count):
        image = rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
        label = rng.integers(0, 6, (batch_size, size, size), dtype=np.uint8)
        yield image, np.where(rng.random(label.shape) < 0.1, np.uint8(255), label)


def start(dtype=jnp.float32, schedule=SCHEDULE, **overrides):
    """The pure step of a tiny network, and its state before the first one."""
    config = get_config("ccnet", num_classes=6, **{**OVERRIDES, **overrides})
    tx = make_optimizer("sgd", schedule, momentum=0.9, weight_decay=1e-4)
    model = abstract_model(config, dtype=dtype, param_dtype=dtype)
    step = make_train_step(
        nnx.split(model, nnx.Param, nnx.BatchStat)[0],
        tx,
        schedule=schedule,
        preprocess=Preprocess(),
        aux_weights=config.aux_weights,
    )
    init = jax.jit(
        lambda: init_state(build(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=dtype), tx)
    )
    return step, init.lower().compile(compiler_options=FAST_COMPILE)()


def counted(function):
    """The function, and the list of its calls: under jit, of its traces."""
    calls = []

    def wrapper(*args):
        calls.append(args)
        return function(*args)

    return wrapper, calls


def train(devices, steps, dtype):
    """Losses, and the state after the last step, on the host."""
    mesh = make_mesh(jax.devices()[:devices])
    # At a higher rate the training is chaotic: it enlarges float32's rounding beyond the bound on
    # some processors, and not on others.
    step, state = start(dtype, optax.constant_schedule(0.001), **TWO_STAGES)
    step, traces = counted(step)
    compiled = compile_step(step, mesh)
    state = jax.device_put(state, replicated(mesh))
    losses = []
    for batch in batches(steps):
        before = state
        state, metrics = compiled(state, *put_batch(batch, mesh))
        losses.append(metrics.loss)
    assert len(traces) == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    for leaf in jax.tree.leaves((state, metrics)):
        assert leaf.sharding.is_equivalent_to(replicated(mesh), leaf.ndim)
    return np.array(losses), jax.device_get(state)


def test_eight_devices_equal_one():
    """In float64; `test_processes` compares losses in float32."""
    tolerance = 1e-9
    with jax.enable_x64(True):
        one_losses, one = train(1, 20, jnp.float64)
        eight_losses, eight = train(8, 20, jnp.float64)
    assert one_losses.dtype == jnp.float64
    np.testing.assert_allclose(eight_losses, one_losses, rtol=tolerance)
    assert one.step == eight.step == 20
    for ours, theirs in zip(jax.tree.leaves(eight.stats), jax.tree.leaves(one.stats), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * abs(theirs).max())


@pytest.fixture(scope="module")
def with_aux():
    """The step of a network with an auxiliary head and dropout, without donation."""
    step, state = start(**AUX)
    return jax.jit(step), state


def test_step_is_gradient_descent_on_the_loss(with_aux):
    step, state = with_aux
    image, label = next(batches(1))
    after, metrics = step(state, image, label)
    pairs = zip(jax.tree.leaves(after.params), jax.tree.leaves(state.params), strict=True)
    moved = np.sqrt(sum(np.sum(np.subtract(a, b, dtype=np.float64) ** 2) for a, b in pairs))
    assert int(after.step) == 1
    assert float(metrics.lr) == np.float32(0.01)
    # The first update has no momentum yet: lr times gradient, up to the tiny decay.
    assert moved == pytest.approx(0.01 * float(metrics.grad_norm), rel=1e-2)
    stats = zip(jax.tree.leaves(after.stats), jax.tree.leaves(state.stats), strict=True)
    assert all(np.any(np.asarray(a) != b) for a, b in stats)


def test_dropout_depends_on_the_step_alone(with_aux):
    step, state = with_aux
    image, label = next(batches(1))
    losses = [float(step(state, image, label)[1].loss) for _ in range(2)]
    later = dataclasses.replace(state, step=state.step + 1)
    assert losses[0] == losses[1] != float(step(later, image, label)[1].loss)


def test_auxiliary_head_is_trained(with_aux):
    step, state = with_aux
    after, _ = step(state, *next(batches(1)))
    path = ("aux_head", "classifier", "bias")
    before, moved = (dict(nnx.to_flat_state(s.params))[path] for s in (state, after))
    assert np.any(np.asarray(moved[...]) != before[...])


def test_batch_without_valid_pixels_leaves_finite_parameters(with_aux):
    step, state = with_aux
    image, label = next(batches(1))
    after, metrics = step(state, image, np.full_like(label, 255))
    assert float(metrics.loss) == float(metrics.grad_norm) == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


def test_keeps_the_structure_of_the_state(with_aux):
    step, state = with_aux
    after, _ = step(state, *next(batches(1)))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for ours, theirs in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
