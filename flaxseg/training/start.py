"""What a training starts from, where that is not random numbers alone."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from flaxseg import models, native
from flaxseg.labels import LabelSet
from flaxseg.model_dir import check_keys
from flaxseg.origin import Chain
from flaxseg.preprocess import Preprocess
from flaxseg.training.averaging import Averaging
from flaxseg.training.config import flag, show
from flaxseg.training.freezing import NOTHING, Frozen
from flaxseg.training.step import TrainState, init_state


class Start(NamedTuple):
    """Weights from elsewhere.

    Attributes:
        arrays: native key -> array in torch's axis order; keys that are not there start from
            random numbers.
        lines: what they are and what they leave out, for the user to read.
        preprocess: the normalisation of the images that they were trained on, where known.
        known: of the arrays that are known in part alone, such as the rows of some classes, key ->
            where they are, of the array's shape; the rest starts from random numbers, too.
        origin: where they come from, with their licences.
    """

    arrays: dict[str, np.ndarray]
    lines: Sequence[str]
    preprocess: Preprocess | None = None
    known: Mapping[str, np.ndarray] = MappingProxyType({})
    origin: Chain = ()

    @property
    def whole(self) -> set[str]:
        """Native keys of the arrays in which nothing is random."""
        return self.arrays.keys() - self.known.keys()

    def report(self, preprocess: Preprocess) -> list[str]:
        """The lines for a run, and one more if it normalises its images in another way."""
        theirs = self.preprocess
        if theirs is None or theirs.is_close(preprocess):
            return list(self.lines)
        there, here = theirs.to_json(), preprocess.to_json()
        names = [name for name in there if there[name] != here[name]]
        there, here = (
            " ".join(f"{flag(name)} {show(values[name])}" for name in names)
            for values in (there, here)
        )
        return [*self.lines, f"its images were normalised with {there}, those of this run {here}"]


Reader = Callable[[str, models.Config, LabelSet], Start]
"""Reads the checkpoint that `--init` names, for a network and its classes."""


def replace_weights(
    state: TrainState,
    start: Start,
    *,
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    sharding: Any,
    averaging: Averaging | None = None,
    frozen: Frozen = NOTHING,
) -> TrainState:
    """The state before the first step with these weights in it, each where the old one lay.

    Args:
        state: with random weights, on the devices.
        start: the weights.
        graphdef: of the network.
        tx: optimiser.
        sharding: of the state.
        averaging: how an average follows the weights, if one does.
        frozen: the weights that do not learn.

    Raises:
        CheckpointError: names keys that the network does not have, or that have another shape.
    """
    leaves = native.leaves(nnx.merge(graphdef, state.params, state.stats))
    unlike = {key: array for key, array in start.arrays.items() if leaves.get(key) != array.shape}
    check_keys({key: leaves[key] for key in unlike if key in leaves}, unlike)
    params, stats = (_replaced(part, start) for part in (state.params, state.stats))

    def begin(params: nnx.State, stats: nnx.State) -> TrainState:
        return init_state(nnx.merge(graphdef, params, stats), tx, averaging, frozen)

    begin = jax.jit(
        begin,
        out_shardings=sharding,
        donate_argnums=(0, 1),
        compiler_options=models.quick_compile(),
    )
    return begin(params, stats)


def _replaced(variables: nnx.State, start: Start) -> nnx.State:
    """The variables with those values that are given; a device gets no more than its part."""

    def put(leaf: nnx.Variable, array: np.ndarray, dtype: Any) -> jax.Array:
        old, new = leaf.get_value(), native.from_torch_axes(leaf, array).astype(dtype)
        return jax.make_array_from_callback(old.shape, old.sharding, lambda index: new[index])

    def replace(path: tuple[Any, ...], leaf: nnx.Variable) -> nnx.Variable:
        key = ".".join(map(str, path))
        if key not in start.arrays:
            return leaf
        old = leaf.get_value()
        new = put(leaf, start.arrays[key], old.dtype)
        if key in start.known:
            choose = jax.jit(jnp.where, out_shardings=old.sharding)
            new = choose(put(leaf, start.known[key], bool), new, old)
        return leaf.replace(new)

    flat = nnx.to_flat_state(variables)
    return nnx.from_flat_state([(path, replace(path, leaf)) for path, leaf in flat])
