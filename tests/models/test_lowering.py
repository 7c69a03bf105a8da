"""What every network's programs say to the compilers of CPUs, GPUs and TPUs.

Nothing is compiled: a program is traced once and lowered for each platform, and its text is read.
All 38 networks, with all their blocks, take minutes:

    WHOLE=1 pytest tests/models/test_lowering.py

Without that it is those that differ in more than widths and numbers of blocks, with few of them.
"""

import os
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from convert.parity.networks import COMPARISONS, small_config
from flaxseg import models
from flaxseg.preprocess import Preprocess
from flaxseg.training.step import TrainState, make_train_step

WHOLE = "WHOLE" in os.environ
NAMES = [name for name in models.list_models() if WHOLE or COMPARISONS[name].distinct]
PLATFORMS = ("cpu", "cuda", "tpu")
SIZE = (64, 64)
IMAGES = jax.ShapeDtypeStruct((2, *SIZE, 3), jnp.uint8)
LABELS = jax.ShapeDtypeStruct((2, *SIZE), jnp.uint8)
DEFAULTS = ("bisenetv2", "ccnet", "segformer", "setr", "vitseg")
EXACT, FAST = frozenset(["HIGHEST"]), frozenset(["DEFAULT"])
HALF, FULL = frozenset(["bf16"]), frozenset(["f32"])


class Product(NamedTuple):
    """One matrix product or convolution of floating-point numbers."""

    kind: str
    dtypes: frozenset[str]
    precision: frozenset[str]
    grouped: bool


def products(traced, platform):
    """All of a program, as it is lowered for a platform."""
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    found = []
    for line in text.splitlines():
        kind = re.search(r"stablehlo\.(dot_general|dot|convolution)\b", line)
        if kind is None:
            continue
        operands = re.search(r" : \((.*)\) -> ", line)
        assert operands, line
        dtypes = frozenset(re.findall(r"x([a-z]+[0-9]+)>", operands[1]))
        precision = frozenset(re.findall(r"\b(DEFAULT|HIGHEST|HIGH)\b", line))
        groups = re.search(r"feature_group_count = (\d+)", line)
        if not dtypes <= {"i8", "i32"}:
            found.append(Product(kind[1], dtypes, precision, bool(groups and int(groups[1]) > 1)))
    assert found
    return found


def network(name, dtype=jnp.float32):
    config = models.get_config(name) if WHOLE else small_config(name)
    config = config.with_image_size(SIZE)
    model = models.abstract_model(config, dtype=dtype)
    return config, *nnx.split(model, nnx.Param, nnx.BatchStat)


def forward(name):
    _, graphdef, params, stats = network(name)

    def run(params, stats, images):
        model = models.eval_view(nnx.merge(graphdef, params, stats))
        return model(Preprocess()(images)).logits

    return jax.jit(run).trace(params, stats, IMAGES)


def training_step(name, precision, dtype=jnp.float32):
    config, graphdef, params, stats = network(name, dtype)
    tx = optax.sgd(0.1)
    step = make_train_step(
        graphdef,
        tx,
        schedule=lambda step: 0.1,
        preprocess=Preprocess(),
        aux_weights=config.aux_weights,
        matmul_precision=precision,
    )
    number = jax.ShapeDtypeStruct((), jnp.int32)
    state = TrainState(number, params, stats, jax.eval_shape(tx.init, params))
    return jax.jit(step).trace(state, IMAGES, LABELS)


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_multiplied_as_such_where_that_is_asked_for(name):
    for traced in (forward(name), training_step(name, "highest")):
        for platform in PLATFORMS:
            found = products(traced, platform)
            assert {(product.precision, product.dtypes) for product in found} == {(EXACT, FULL)}
            # Depthwise convolutions of CPUs and TPUs are sums of shifted maps.
            grouped = any(product.grouped for product in found)
            assert grouped == (platform == "cuda" and name.startswith(("segformer", "bisenet")))


@pytest.mark.parametrize("name", DEFAULTS)
def test_bfloat16_is_multiplied_as_such(name):
    """What is not is float32 on purpose: interpolation, and products of weights."""
    traced = training_step(name, "default", jnp.bfloat16)
    found = products(traced, "tpu")
    fast = [product for product in found if product.precision == FAST]
    exact = [product for product in found if product.precision == EXACT]
    assert len(fast) + len(exact) == len(found)
    assert {product.dtypes for product in fast} == {HALF}
    wide = [product for product in exact if product.dtypes != HALF]
    assert {(product.kind, product.dtypes) for product in wide} <= {("dot_general", FULL)}
    assert len(exact) < len(fast)
