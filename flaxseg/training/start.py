"""What a training starts from, where that is not random numbers alone."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from flaxseg import models, native
from flaxseg.sharding import replicated
from flaxseg.training.averaging import Averaging
from flaxseg.training.step import TrainState, init_state


class Start(NamedTuple):
    """Weights from elsewhere.

    Attributes:
        arrays: native key -> array in torch's axis order; keys that are not there start from
            random numbers.
        lines: what they are and what they leave out, for the user to read.
    """

    arrays: dict[str, np.ndarray]
    lines: Sequence[str]


Reader = Callable[[str, models.Config], Start]
"""Reads the checkpoint that `--init` names, for a network."""


def replace_weights(
    state: TrainState,
    start: Start,
    *,
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    averaging: Averaging | None = None,
) -> TrainState:
    """The state before the first step with these weights in it."""
    model = nnx.merge(graphdef, state.params, state.stats)
    native.fill(model, {**native.state_dict(model), **start.arrays})
    return jax.device_put(init_state(model, tx, averaging), replicated(mesh))
