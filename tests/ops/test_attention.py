import importlib
import types

import jax
import numpy as np
import pytest
from comparison import assert_close, random
from jax import numpy as jnp

from flaxseg import ops

attention_file = importlib.import_module("flaxseg.ops.attention")

SHAPES = {"query": (2, 3, 5, 4), "key": (2, 3, 7, 4), "value": (2, 3, 7, 4)}


def inputs(dtype=None) -> list[jax.Array]:
    return [jnp.asarray(random(*s, seed=i), dtype) for i, s in enumerate(SHAPES.values())]


def by_definition(query, key, value):
    energies = jnp.einsum("bhnd,bhmd->bhnm", query, key) / np.sqrt(query.shape[-1])
    weights = jnp.exp(energies)
    weights = weights / weights.sum(-1, keepdims=True)
    return jnp.einsum("bhnm,bhmd->bhnd", weights, value)


@pytest.mark.usefixtures("x64")
def test_equals_the_definition():
    assert_close(ops.attention(*inputs()), by_definition(*inputs()))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("argument", [0, 1, 2])
def test_gradients_equal_the_definitions(argument):
    cotangent = jnp.asarray(random(*SHAPES["query"], seed=3))
    ours, theirs = (
        jax.vjp(function, *inputs())[1](cotangent)[argument]
        for function in (ops.attention, by_definition)
    )
    assert_close(ours, theirs)


@pytest.mark.usefixtures("x64")
def test_with_dropout_too_it_equals_the_definition():
    def third(weights):
        return jnp.where(jnp.arange(weights.shape[-1]) % 3 == 0, 0, 1.5 * weights)

    def by_hand(query, key, value):
        energies = query @ jnp.swapaxes(key, 2, 3) / np.sqrt(query.shape[-1])
        return third(jax.nn.softmax(energies, -1)) @ value

    (ours, pull), (theirs, pull_theirs) = (
        jax.vjp(function, *inputs())
        for function in (lambda *args: ops.attention(*args, dropout=third), by_hand)
    )
    for a, b in zip((ours, *pull(ours)), (theirs, *pull_theirs(ours)), strict=True):
        assert_close(a, b)


def test_large_energies_stay_finite():
    query, key, value = inputs(jnp.float32)
    output, pullback = jax.vjp(ops.attention, 1e4 * query, 1e4 * key, value)
    assert all(np.isfinite(x).all() for x in (output, *pullback(output)))


def test_bfloat16_follows_float32():
    exact, pull_exact = jax.vjp(ops.attention, *inputs(jnp.float32))
    half, pull_half = jax.vjp(ops.attention, *inputs(jnp.bfloat16))
    seen = []
    ops.attention(*inputs(jnp.bfloat16), dropout=lambda weights: seen.append(weights) or weights)
    assert seen[0].dtype == jnp.float32
    for a, b in zip((half, *pull_half(half)), (exact, *pull_exact(exact)), strict=True):
        assert a.dtype == jnp.bfloat16
        assert np.abs(a.astype(jnp.float32) - b).max() < 0.03 * np.abs(b).max()


@pytest.fixture
def cudnn(monkeypatch):
    """What JAX does on a GPU, by its formula: with odd numbers of tokens cuDNN has no gradient."""
    given = []
    library = jax.nn.dot_product_attention

    @jax.custom_vjp
    def even(x):
        return x

    def refuse(x):
        if x.shape[1] % 2:
            raise NotImplementedError("odd")
        return x, None

    even.defvjp(refuse, lambda _, gradient: (gradient,))

    def attend(query, key, value, *, implementation, **lengths):
        assert implementation == "cudnn"
        given.append(query.shape[1:2] + key.shape[1:2])
        query, key, value = map(even, (query, key, value))
        return library(query, key, value, implementation="xla", **lengths)

    monkeypatch.setattr(jax.nn, "dot_product_attention", attend)
    gpus = [types.SimpleNamespace(compute_capability="9.0")]
    monkeypatch.setattr(jax, "local_devices", lambda backend: gpus)
    attention_file._cudnn_form.cache_clear()
    yield given
    attention_file._cudnn_form.cache_clear()


@pytest.mark.parametrize(("tokens", "keys"), [(5, 7), (6, 4), (6, 7)])
def test_what_a_gpu_runs_through_cudnn_is_the_same(cudnn, tokens, keys):
    shapes = (2, 3, tokens, 8), *((2, 3, keys, 8),) * 2
    arrays = [jnp.asarray(random(*s, seed=i), jnp.bfloat16) for i, s in enumerate(shapes)]
    form = attention_file._cudnn_form(shapes[0], shapes[1], arrays[2].dtype)
    assert form is not None
    (ours, pull), (theirs, pull_theirs) = (jax.vjp(f, *arrays) for f in (form, by_definition))
    for a, b in zip((ours, *pull(ours)), (theirs, *pull_theirs(theirs)), strict=True):
        assert a.shape == b.shape and a.dtype == jnp.bfloat16
        assert np.abs(a - b).max() < 0.05 * np.abs(b).max()
    assert cudnn[-1] == (tokens + tokens % 2, keys + keys % 2)
    form(*arrays)
    assert cudnn[-1] == (tokens, keys)


def test_cudnn_is_only_in_programs_for_gpus_and_only_for_16_bits(cudnn):
    arrays = [jnp.zeros((1, 2, 4, 8), jnp.bfloat16)] * 3
    program = jax.make_jaxpr(ops.attention)(*arrays)
    assert "platform_index" in str(program)
    run = jax.jit(ops.attention)
    on_cpu, on_gpu = (
        run.trace(*arrays).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda")
    )
    assert on_cpu != on_gpu
    wide = [x.astype(jnp.float32) for x in arrays]
    assert "platform_index" not in str(jax.make_jaxpr(ops.attention)(*wide))


@pytest.mark.parametrize(("capability", "fused"), [("7.5", False), ("8.0", True), ("12.0", True)])
def test_old_gpus_have_the_formula_alone(cudnn, monkeypatch, capability, fused):
    gpus = [types.SimpleNamespace(compute_capability=capability)]
    monkeypatch.setattr(jax, "local_devices", lambda backend: gpus)
    form = attention_file._cudnn_form((1, 2, 4, 8), (1, 2, 4, 8), jnp.dtype("bfloat16"))
    assert (form is not None) == fused


def test_without_cudnn_there_is_the_formula_alone():
    assert attention_file._cudnn_form((1, 2, 4, 8), (1, 2, 4, 8), jnp.dtype("bfloat16")) is None
