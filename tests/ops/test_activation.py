import jax
import numpy as np
import pytest
import torch
from comparison import assert_close, random
from jax import numpy as jnp

from flaxseg import ops

pytestmark = pytest.mark.usefixtures("x64")


def test_gelu_equals_torch():
    x = np.concatenate([3 * random(100), [-40.0, 0.0, 40.0]])
    reference = torch.from_numpy(x).requires_grad_()
    result = torch.nn.functional.gelu(reference)
    result.sum().backward()
    assert_close(ops.gelu(jnp.asarray(x)), result.detach().numpy())
    assert_close(jax.vmap(jax.grad(ops.gelu))(jnp.asarray(x)), reference.grad.numpy())


def test_gelu_is_not_the_tanh_form():
    x = jnp.linspace(-3, 3, 101)
    assert np.abs(ops.gelu(x) - jax.nn.gelu(x, approximate=True)).max() > 1e-4
