import jax
import numpy as np
import pytest
import torch
from comparison import assert_close, assert_same_map, nchw, random
from flax import nnx
from jax import numpy as jnp

from flaxseg import native, ops
from flaxseg.ops import initializers as init

pytestmark = pytest.mark.usefixtures("x64")

WIDE = {"dtype": jnp.float64, "param_dtype": jnp.float64}


def twin(layer: nnx.Module, reference: torch.nn.Module) -> torch.nn.Module:
    """The torch layer with the weights of ours."""
    state = {key: torch.from_numpy(value.copy()) for key, value in native.state_dict(layer).items()}
    reference.double().load_state_dict(state)
    return reference


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "groups", "bias"),
    [
        (1, 1, 1, 1, True),
        (1, 2, 1, 1, False),
        (1, 1, 1, 2, True),
        (3, 1, 1, 1, True),
        (3, 2, 1, 1, False),
        (3, 1, 2, 1, True),
        (3, 2, 2, 1, False),
        (3, 1, 4, 1, True),
        (3, 2, 4, 2, True),
        (3, 1, 1, 2, False),
        (7, 2, 1, 1, False),
        (7, 1, 1, 1, True),
    ],
)
def test_conv_equals_torch(kernel, stride, dilation, groups, bias):
    padding = dilation * (kernel // 2)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    ours = ops.Conv(4, 6, kernel, **options, bias=bias, **WIDE, rngs=nnx.Rngs(0))
    theirs = twin(ours, torch.nn.Conv2d(4, 6, kernel, **options, bias=bias))
    assert_same_map(ours, theirs, random(2, 17, 12, 4))


def test_conv_parameter_gradients_equal_torch():
    ours = ops.Conv(4, 6, 3, padding=1, stride=2, **WIDE, rngs=nnx.Rngs(0))
    theirs = twin(ours, torch.nn.Conv2d(4, 6, 3, padding=1, stride=2))
    x = random(2, 9, 8, 4)
    theirs(nchw(x)).square().sum().backward()
    graphdef, params = nnx.split(ours, nnx.Param)

    def loss(params):
        return jnp.square(nnx.merge(graphdef, params)(jnp.asarray(x))).sum()

    gradients = native.state_dict(nnx.merge(graphdef, jax.grad(loss)(params)))
    for key, parameter in theirs.named_parameters():
        assert_close(gradients[key], parameter.grad.numpy())


@pytest.mark.parametrize("bias", [True, False])
def test_linear_equals_torch(bias):
    ours = ops.Linear(5, 7, bias=bias, **WIDE, rngs=nnx.Rngs(0))
    theirs = twin(ours, torch.nn.Linear(5, 7, bias=bias))
    x = random(2, 3, 5)
    assert_close(ours(jnp.asarray(x)), theirs(torch.from_numpy(x)).detach().numpy())


def test_default_initialisation_has_torch_moments():
    ours = ops.Conv(64, 128, 3, rngs=nnx.Rngs(0))
    theirs = torch.nn.Conv2d(64, 128, 3)
    bound = 1 / np.sqrt(64 * 9)
    for key, value in native.state_dict(ours).items():
        reference = theirs.get_parameter(key).detach().numpy()
        assert np.abs(value).max() <= bound
        assert np.abs(value).max() > 0.95 * bound
        np.testing.assert_allclose(value.std(), reference.std(), rtol=0.15)


def test_kaiming_initialisation_has_torch_moments():
    ours = ops.Conv(64, 128, 3, weight_init=init.kaiming_normal_fan_out, rngs=nnx.Rngs(0))
    reference = torch.empty(128, 64, 3, 3)
    torch.nn.init.kaiming_normal_(reference, mode="fan_out", nonlinearity="relu")
    np.testing.assert_allclose(np.std(ours.weight[...]), reference.numpy().std(), rtol=0.02)
    assert abs(np.mean(ours.weight[...])) < 1e-3


def test_computes_in_the_given_dtype():
    ours = ops.Conv(4, 6, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert ours(jnp.ones((1, 5, 5, 4))).dtype == jnp.bfloat16
    assert ours.weight.dtype == jnp.float32
