"""BatchNorm's statistics of weights that no step has made, such as an average."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from flaxseg.data import Batch
from flaxseg.ops import BatchNorm
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import put_batch, replicated
from flaxseg.training.averaging import advance

Estimator = Callable[[nnx.State, nnx.State, Iterable[Batch]], nnx.State]
"""(params, stats, batches) -> stats."""


def make_estimator(
    graphdef: nnx.GraphDef, preprocess: Preprocess, mesh: Mesh, *, aux: bool, seed: int = 0
) -> Estimator:
    """A compiled pass over batches that takes the mean of their statistics.

    As `torch.optim.swa_utils.update_bn`: each batch counts the same, and dropout is active.

    Args:
        graphdef: of the network in train mode, as nnx.split gives it.
        preprocess: from image bytes to the network's input.
        mesh: devices to split every batch over.
        aux: whether the auxiliary heads run, whose norms have statistics of their own.
        seed: of dropout.
    """

    def add(params, stats, image, number):
        model = nnx.merge(graphdef, params, stats, copy=True)
        for _, module in nnx.iter_modules(model):
            if isinstance(module, BatchNorm):
                module.momentum = 1.0  # leaves the batch's own statistics
        key = jax.random.fold_in(jax.random.key(seed), number)
        model(preprocess(image), aux=aux, rngs=nnx.Rngs(dropout=key))
        return advance(stats, nnx.state(model, nnx.BatchStat), 1.0 / (number + 1))

    add = jax.jit(add, out_shardings=replicated(mesh))

    def estimate(params: nnx.State, stats: nnx.State, batches: Iterable[Batch]) -> nnx.State:
        if not jax.tree.leaves(stats):
            return stats
        for number, batch in enumerate(batches):
            stats = add(params, stats, put_batch(batch.image, mesh), jnp.asarray(number))
        return stats

    return estimate
