"""On a canvas every picture gets what it would get alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxseg import models, ops
from flaxseg.errors import ConfigError
from flaxseg.ops import canvas

_BISENET = {
    "backbone.detail_channels": (4, 4, 6),
    "backbone.detail_layers": (1, 1, 1),
    "backbone.semantic_channels": (4, 4, 4, 6),
    "backbone.semantic_layers": (1, 1, 1),
    "backbone.expansion": 2,
    "head_channels": 4,
    "aux_channels": (),
    "aux_weights": (),
}
NETWORKS = {
    "segformer_b0": {
        "backbone.widths": (4, 8),
        "backbone.depths": (1, 1),
        "backbone.heads": (1, 2),
        "backbone.reductions": (4, 1),
        "channels": 8,
    },
    "ccnet": {
        "backbone.width": 2,
        "backbone.blocks": (1, 1, 1, 1),
        "backbone.ceil_pool": True,
        "channels": 8,
    },
    "bisenetv2_mmseg": _BISENET,
    "bisenetv2_coincheung": _BISENET,
}


def network(name: str) -> models.Model:
    """A network whose biases and norms are drawn, too: zeros would hide what lies around."""
    options = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    model = models.create_model(name, 3, rngs=nnx.Rngs(0), **options, **NETWORKS[name])
    rng = np.random.default_rng(0)
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape), state))
    return models.eval_view(model)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_see_a_picture_as_if_it_were_alone(x64, name):
    model = network(name)
    assert model.config.takes_canvas
    graphdef, state = nnx.split(model)
    height, width = (64, 96) if model.config.size_divisor > 1 else (61, 70)
    images = np.random.default_rng(0).normal(size=(2, 96, 96, 3))

    @jax.jit
    def both(state, images, reach):
        network = nnx.merge(graphdef, state)
        alone = network(images[1:, :height, :width], resize=False).logits[0]
        with ops.on_canvas((96, 96), reach):
            logits = network(images, resize=False).logits
            return alone, logits, canvas.reaches((logits.shape[1], logits.shape[2]))

    alone, logits, (rows, cols) = both(state, images, jnp.array([(96, 96), (height, width)]))
    assert alone.shape[:2] == (rows[1], cols[1]) and logits.shape[1:3] == (rows[0], cols[0])
    found = logits[1, : alone.shape[0], : alone.shape[1]]
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-10 * np.abs(alone).max())


def test_maps_that_cannot_be_told_apart_are_refused():
    with ops.on_canvas((8, 8), jnp.array([(5, 5)])):
        canvas.follow((8, 8), lambda n: n // 2)
        with pytest.raises(ConfigError, match="differently far in maps of 4 pixels cannot run on"):
            canvas.follow((8, 8), lambda n: (n + 1) // 2)
