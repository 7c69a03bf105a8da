import jax
import numpy as np
import pytest
import torch
from comparison import assert_close, assert_same_map, nchw, nhwc, random
from flax import nnx
from jax import numpy as jnp

from flaxseg import models, native, ops
from flaxseg.errors import FlaxsegError
from flaxseg.ops import norm

pytestmark = pytest.mark.usefixtures("x64")

WIDE = {"dtype": jnp.float64, "param_dtype": jnp.float64}


def batch_norm_twins(**options) -> tuple[ops.BatchNorm, torch.nn.BatchNorm2d]:
    """Both layers with the same random scale, shift and running statistics."""
    ours = ops.BatchNorm(6, **options, **WIDE)
    for i, leaf in enumerate((ours.weight, ours.bias, ours.running_mean, ours.running_var)):
        leaf[...] = jnp.asarray(np.abs(random(6, seed=10 + i)) + 0.1)
    theirs = torch.nn.BatchNorm2d(6, **options).double()
    state = {key: torch.from_numpy(value.copy()) for key, value in native.state_dict(ours).items()}
    theirs.load_state_dict(state, strict=False)
    return ours, theirs


@pytest.mark.parametrize("options", [{}, {"eps": 1e-2, "momentum": 0.3}])
def test_batch_norm_in_training_equals_torch(options):
    ours, theirs = batch_norm_twins(**options)
    x = 3 + 2 * random(2, 5, 4, 6)
    reference = nhwc(theirs(nchw(x)))
    assert_close(ours(jnp.asarray(x)), reference)
    assert_close(ours.running_mean[...], theirs.running_mean.numpy())
    assert_close(ours.running_var[...], theirs.running_var.numpy())


@pytest.mark.parametrize("wide", [norm.WIDE, 0])
def test_batch_norm_gradients_equal_torch(monkeypatch, wide):
    """Of a few channels, and as they are made of many."""
    monkeypatch.setattr(norm, "WIDE", wide)
    ours, theirs = batch_norm_twins()
    graphdef, state = nnx.split(ours)
    pure = lambda x: nnx.merge(graphdef, state, copy=True)(x)  # noqa: E731
    assert_same_map(pure, theirs, 3 + 2 * random(2, 5, 4, 6), bound=1e-11)


def test_batch_norm_in_evaluation_equals_torch():
    ours, theirs = batch_norm_twins()
    assert_same_map(models.eval_view(ours), theirs.eval(), random(2, 5, 4, 6))


def test_batch_norm_keeps_float32_statistics_under_bfloat16():
    ours = ops.BatchNorm(6, dtype=jnp.bfloat16)
    x = jnp.asarray(1000 + random(2, 8, 8, 6), jnp.float32)
    y = ours(x)
    assert y.dtype == jnp.bfloat16
    assert ours.running_mean.dtype == jnp.float32
    # The spread around 1000 is lost if the statistics themselves are bfloat16.
    np.testing.assert_allclose(np.std(np.asarray(y, np.float32)), 1, atol=0.02)


def test_batch_norm_variance_survives_a_large_mean():
    x = (1000 + random(2, 16, 16, 6)).astype(np.float32)
    y = ops.BatchNorm(6)(jnp.asarray(x))
    centered = x.astype(np.float64) - x.astype(np.float64).mean((0, 1, 2))
    np.testing.assert_allclose(
        y, centered / np.sqrt(np.square(centered).mean((0, 1, 2))), atol=2e-3
    )


def test_batch_norm_refuses_a_single_value():
    with pytest.raises(FlaxsegError, match=r"at least 2 values per channel .* \(1, 1, 1, 6\)"):
        ops.BatchNorm(6)(jnp.ones((1, 1, 1, 6)))


@pytest.mark.parametrize("eps", [1e-5, 1e-6])
def test_layer_norm_equals_torch(eps):
    ours = ops.LayerNorm(6, eps=eps, **WIDE)
    ours.weight[...], ours.bias[...] = (
        jnp.asarray(random(6, seed=2)),
        jnp.asarray(random(6, seed=3)),
    )
    theirs = torch.nn.LayerNorm(6, eps=eps).double()
    theirs.load_state_dict(
        {key: torch.from_numpy(value.copy()) for key, value in native.state_dict(ours).items()}
    )
    x = 1e-3 * random(2, 5, 6)
    reference = torch.from_numpy(x).requires_grad_()
    cotangent = random(2, 5, 6, seed=1)
    theirs(reference).backward(torch.from_numpy(cotangent))
    result, pullback = jax.vjp(ours, jnp.asarray(x))
    assert_close(result, theirs(reference).detach().numpy())
    assert_close(pullback(jnp.asarray(cotangent))[0], reference.grad.numpy(), bound=1e-11)


@pytest.mark.parametrize("shape", [(2, 16, 24, 4), (1, 28, 28, 4), (2, 28, 28, 4)])
def test_means_in_float32_do_not_add_one_value_after_the_other(shape):
    """Which puts them up to 1e-6 off."""
    x = 1 + random(*shape)
    x = x.astype(np.float32)

    @jax.jit
    def statistics(x):
        layer = ops.BatchNorm(shape[-1], momentum=1.0)
        layer(x)
        return layer.running_mean[...], layer.running_var[...]

    mean, var = statistics(jnp.asarray(x))
    assert mean.dtype == jnp.float32
    exact, count = x.astype(float), x.size // shape[-1]
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=3e-7)
    np.testing.assert_allclose(var * (count - 1) / count, exact.var((0, 1, 2)), rtol=4e-7)
