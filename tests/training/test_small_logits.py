"""A step leaves the interpolation of the logits to the loss, where that is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convert.parity.networks import small_config
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.ops import resize_bilinear


def rule(name):
    """What may tell one network's last interpolation from another's."""
    config = models.get_config(name)
    fields = ("align_corners", "upsample")
    return type(config), *(getattr(config, field, None) for field in fields)


NAMES = list({rule(name): name for name in models.list_models()}.values())


@pytest.mark.parametrize("name", NAMES)
def test_interpolated_once_the_small_logits_are_the_network_s(name):
    size = (64, 64)
    config = small_config(name).with_image_size(size)
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    model = models.eval_view(model)
    corners = model.logits_align_corners(size)
    if corners is None:
        assert name.startswith("vitseg") or config.backbone.ceil_pool
        return
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state, images):
        network = nnx.merge(graphdef, state)
        aux = bool(config.aux_weights)
        small, whole = (network(images, resize=resize, aux=aux) for resize in (False, True))
        once = [resize_bilinear(x, size, align_corners=corners) for x in (small[0], *small.aux)]
        return once, [whole[0], *whole.aux]

    images = np.random.default_rng(0).normal(size=(1, *size, 3)).astype(np.float32)
    once, whole = run(state, jnp.asarray(images))
    for ours, theirs in zip(once, whole, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_two_interpolations_are_left_to_the_network():
    ccnet = models.abstract_model(models.get_config("ccnet"))
    assert ccnet.logits_align_corners((64, 72)) is not None
    assert ccnet.logits_align_corners((65, 72)) is None
