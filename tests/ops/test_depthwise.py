import jax
import numpy as np
import pytest
import torch
from comparison import assert_close, nchw, nhwc, random
from flax import nnx
from jax import numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flaxseg import ops
from flaxseg.ops import depthwise
from flaxseg.ops.depthwise import depthwise_conv
from flaxseg.ops.window import Window

SHAPE = (2, 11, 14, 4)


def kernel(k: int, channels: int, seed: int = 2) -> np.ndarray:
    return random(k, k, 1, channels, seed=seed)


def library(x, weight, window: Window) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """torch's output, and its inputs, which collect gradients."""
    x, weight = nchw(x), torch.from_numpy(weight.transpose(3, 2, 0, 1).copy()).requires_grad_()
    stride, padding, dilation = window
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    y = torch.nn.functional.conv2d(x, weight, groups=x.shape[1], **options)
    return y, x, weight


@jax.jit(static_argnums=3)
def value_and_gradients(x, weight, cotangent, window):
    y, pullback = jax.vjp(lambda x, w: depthwise_conv(x, w, window), x, weight)
    return y, *pullback(cotangent)


WINDOWS = [
    *((3, Window(stride, padding)) for stride in (1, 2, 3) for padding in (0, 1, 4)),
    *((3, Window(stride, 2, 2)) for stride in (1, 2)),
    (2, Window(2, 0)),
    (5, Window(1, 2)),
    (7, Window(4, 3)),
    (1, Window(2, 0)),
    (1, Window(1, 1)),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(("k", "window"), WINDOWS)
def test_output_and_gradients_equal_torch(k, window, times):
    x, weight = random(*SHAPE), kernel(k, times * SHAPE[-1])
    y, theirs_x, theirs_weight = library(x, weight, window)
    cotangent = random(*nhwc(y).shape, seed=1)
    y.backward(nchw(cotangent).detach())
    ours, of_map, of_weight = value_and_gradients(x, weight, cotangent, window)
    assert_close(ours, nhwc(y))
    assert_close(of_map, nhwc(theirs_x.grad))
    assert_close(of_weight, theirs_weight.grad.numpy().transpose(2, 3, 1, 0))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("chunk", [1, 200, 10**9])
def test_the_weight_gradient_does_not_depend_on_its_pieces(chunk, monkeypatch):
    monkeypatch.setattr(depthwise, "CHUNK", chunk)
    x, weight, window = random(2, 12, 5, 4), kernel(3, 4), Window(1, 1)
    y, _, theirs = library(x, weight, window)
    y.square().sum().backward()

    def loss(weight):
        return jnp.square(depthwise_conv(jnp.asarray(x), weight, window)).sum()

    assert_close(jax.grad(loss)(weight), theirs.grad.numpy().transpose(2, 3, 1, 0))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("channels", [4, 8])
@pytest.mark.parametrize("window", [Window(1, 1), Window(2, 1), Window(1, 2, 2)])
def test_all_forms_are_equal(channels, window):
    x, weight = jnp.asarray(random(*SHAPE)), jnp.asarray(kernel(3, channels))
    first, *others = depthwise._forms(window, "highest").values()
    ours = first.forward(x, weight)
    cotangent = jnp.asarray(random(*ours.shape))
    gradients = first.gradients(x, weight, cotangent)
    assert len(others) == 2
    for other in others:
        assert_close(other.forward(x, weight), ours)
        for a, b in zip(other.gradients(x, weight, cotangent), gradients, strict=True):
            assert_close(a, b)


@pytest.mark.parametrize("groups", [4, 1])
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_form_goes_by_the_platform_that_a_program_is_lowered_for(platform, groups):
    conv = ops.Conv(4, 8, 3, padding=1, groups=groups, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(conv)

    def loss(params, x):
        return jnp.square(nnx.merge(graphdef, params)(x)).sum()

    program = jax.jit(jax.value_and_grad(loss, (0, 1))).trace(params, jnp.zeros((1, 5, 5, 4)))
    text = program.lower(lowering_platforms=(platform,)).as_text()
    # Forward, and the gradients of map and weight: the last alone, or all but the last.
    expected = {"cpu": 0, "tpu": 1} if groups > 1 else {"cpu": 2}
    assert text.count("stablehlo.convolution") == expected.get(platform, 3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_narrow_types_round_once(dtype):
    """Sums are float32 or wider, so the result is the exact one to a rounding."""
    x, weight = (jnp.asarray(a, dtype) for a in (random(2, 9, 8, 4), kernel(3, 4)))
    exact = library(np.asarray(x, np.float64), np.asarray(weight, np.float64), Window(1, 1))[0]
    ours = jax.jit(depthwise_conv, static_argnums=2)(x, weight, Window(1, 1))
    assert ours.dtype == dtype
    error = np.abs(np.asarray(ours, np.float64) - nhwc(exact)) / np.abs(nhwc(exact)).max()
    assert error.max() <= jnp.finfo(dtype).eps


@pytest.mark.usefixtures("x64")
def test_the_fence_keeps_every_bit_of_float64():
    x = jnp.asarray(random(1, 6, 6, 2))
    weight = jnp.asarray(np.eye(9)[4].reshape(3, 3, 1, 1) * np.ones(2))
    identity = jax.jit(depthwise_conv, static_argnums=2)(x, weight, Window(1, 1))
    np.testing.assert_array_equal(identity, x)


@pytest.mark.parametrize("times", [1, 2])
def test_a_batch_over_eight_devices(times):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    x, weight = (np.asarray(a, np.float32) for a in (random(16, 12, 9, 4), kernel(3, 4 * times)))

    def loss(x, weight):
        remade = jax.checkpoint(lambda x: depthwise_conv(x, weight, Window(2, 1)))
        return jnp.square(remade(x)).mean()

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    alone = run(x, weight)
    batch = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    everywhere = jax.device_put(weight, NamedSharding(mesh, PartitionSpec()))
    spread = run(batch, everywhere)
    assert spread[1][0].sharding.spec[0] == "data"
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(spread), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
