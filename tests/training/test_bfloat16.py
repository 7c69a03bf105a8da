"""Half precision learns like single precision, in every network."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from convert.parity.networks import COMPARISONS, small_config
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.preprocess import Preprocess
from flaxseg.training.optim import make_optimizer
from flaxseg.training.step import init_state, make_train_step

FAST_COMPILE = {"xla_backend_optimization_level": 0}
STEPS = 20
SHALLOW = {
    "bisenetv2": {
        "backbone.detail_layers": (1, 1, 1),
        "backbone.semantic_layers": (1, 1, 1),
        "aux_channels": (),
        "aux_weights": (),
    },
    "ccnet_r50": {"aux_channels": 0, "aux_weights": ()},
    "segformer_b0": {
        "backbone.widths": (8, 12),
        "backbone.depths": (1, 1),
        "backbone.heads": (1, 2),
        "backbone.reductions": (4, 1),
    },
}
"""Compiling takes most of the time, which is why SETR, whose encoder is vitseg's, is left out."""
NETWORKS = ("bisenetv2", "ccnet_r50", "segformer_b0", "vitseg")


def losses(name: str, dtype: jnp.dtype) -> tuple[np.ndarray, nnx.State]:
    """The loss before each of 20 updates on the same two images, and the state after them."""
    comparison = COMPARISONS[name]
    config = models.override(small_config(name), SHALLOW.get(name, {}))
    tx = make_optimizer(
        "sgd", 1e-2, momentum=0.9
    )  # AdamW's arithmetic takes as long to compile as a network
    model = native.fill(models.abstract_model(config, dtype=dtype), random_state(config, 0))
    step = make_train_step(
        nnx.split(model, nnx.Param, nnx.BatchStat)[0],
        tx,
        schedule=optax.constant_schedule(1e-2),
        preprocess=Preprocess(),
        aux_weights=config.aux_weights,
    )
    state = init_state(model, tx)
    rng = np.random.default_rng(0)
    shape = (2, *comparison.sizes[0])
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    label = (image.mean(-1) // (256 / config.num_classes)).astype(np.uint8)
    compiled = jax.jit(step).lower(state, image, label).compile(compiler_options=FAST_COMPILE)
    found = []
    for _ in range(STEPS):
        state, metrics = compiled(state, image, label)
        found.append(float(metrics.loss))
    return np.array(found), state


@pytest.mark.usefixtures("quick_depthwise")
@pytest.mark.parametrize("name", NETWORKS)
def test_twenty_steps_follow_float32(name):
    exact, _ = losses(name, jnp.float32)
    half, state = losses(name, jnp.bfloat16)
    assert exact[-1] < exact[0]
    np.testing.assert_allclose(half, exact, rtol=0.05)
    assert np.abs(half - exact).max() > 0
    variables = jax.tree.leaves((state.params, state.stats, state.opt_state))
    floats = {leaf.dtype for leaf in variables if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floats == {jnp.dtype(jnp.float32)}
