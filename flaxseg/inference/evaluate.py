"""Scores of a model on labelled batches."""

import collections
import math
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from flaxseg.data import Batch, pad_batch
from flaxseg.errors import ConfigError, DataError
from flaxseg.inference.metrics import Scores, confusion_matrix
from flaxseg.inference.predict import image_logits
from flaxseg.labels import IGNORE, LabelSet
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import DATA, batch_axes, put_batch, replicated, whole

Evaluator = Callable[[nnx.State, nnx.State, Iterable[Batch]], Scores]
"""(params, stats, batches) -> scores."""

# Enough that the device never waits for the host, few enough that batches do not pile up.
_BATCHES_IN_FLIGHT = 4


def evaluate(
    model: nnx.Module,
    batches: Iterable[Batch],
    *,
    labels: LabelSet,
    preprocess: Preprocess,
    mesh: Mesh | None = None,
) -> Scores:
    """Scores a model on all batches.

    Args:
        model: a segmenter of this library; it is run in eval mode and left as it is.
        batches: such as `flaxseg.data.eval_loader` gives. Pixels labelled `IGNORE` and samples of
            weight 0 do not count. Each shape compiles once.
        labels: the classes the model knows.
        preprocess: how its images were normalised.
        mesh: devices to split every batch over, along the axes "data" and "fsdp" if there is one;
            None runs on one.

    Raises:
        ConfigError: the model has another number of classes, or the mesh no axis "data".
        DataError: there is no batch, or a label is outside the label set.
    """
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    run = make_evaluator(graphdef, labels, preprocess, mesh)
    if mesh is not None:
        params, stats = jax.device_put((params, stats), replicated(mesh))
    return run(params, stats, batches)


def make_evaluator(
    graphdef: nnx.GraphDef,
    labels: LabelSet,
    preprocess: Preprocess,
    mesh: Mesh | None = None,
) -> Evaluator:
    """A compiled evaluation, for a training loop whose weights change between calls.

    Args:
        graphdef: of `nnx.split(model, nnx.Param, nnx.BatchStat)`, in train or eval mode.
        labels: the classes the model knows.
        preprocess: how its images were normalised.
        mesh: devices to split every batch over, along the axes "data" and "fsdp" if there is one;
            the weights must lie on the same mesh, whole or split. With several processes every one
            is to give the same batches. None runs where the weights are.

    Returns:
        A function of the two other parts of the split and of batches. It compiles once for each
        shape of a batch, however often it is called.

    Raises:
        ConfigError: the mesh has no axis "data".
    """
    place = _placement(mesh)

    def count(params: nnx.State, stats: nnx.State, batch: Batch) -> jax.Array:
        model = nnx.merge(graphdef, *whole((params, stats), mesh))
        size = batch.label.shape[1:3]
        logits = image_logits(model, labels, preprocess, batch.image, size)
        prediction = logits.argmax(axis=-1)
        return confusion_matrix(prediction, batch.label, labels.num_classes, batch.weight)

    everywhere = None if mesh is None else replicated(mesh)
    count = jax.jit(count, out_shardings=everywhere)

    def run(params: nnx.State, stats: nnx.State, batches: Iterable[Batch]) -> Scores:
        checked = (_checked(batch, labels) for batch in batches)
        return Scores.from_matrix(_total(count(params, stats, place(b)) for b in checked))

    return run


def _placement(mesh: Mesh | None) -> Callable[[Batch], Batch]:
    """How a batch reaches the devices: as it is, or filled up and split along the data axis."""
    if mesh is None:
        return lambda batch: batch
    if DATA not in mesh.shape:
        raise ConfigError(f"the mesh has the axes {mesh.axis_names}, it needs one named {DATA!r}")
    devices = math.prod(mesh.shape[axis] for axis in batch_axes(mesh))

    def place(batch: Batch) -> Batch:
        padded = pad_batch(batch, -(-len(batch.image) // devices) * devices)
        return put_batch(padded, mesh, complete=True)

    return place


def _checked(batch: Batch, labels: LabelSet) -> Batch:
    """The batch, once its labels are known to fit: the count itself would leave others out."""
    label = np.asarray(batch.label)
    wrong = (label >= labels.num_classes) & (label != IGNORE)
    if wrong.any():
        sample = int(wrong.any(axis=(1, 2)).argmax())
        raise DataError(
            f"label {label[wrong][0]} in sample {int(batch.index[sample])} is outside 0 to "
            f"{labels.num_classes - 1}, the classes of {labels.name!r}, and is not {IGNORE} "
            "(ignored)"
        )
    return batch


def _total(counts: Iterator[jax.Array]) -> np.ndarray:
    """Sums the matrices in 64 bits, waiting only for those a few batches back."""
    pending: collections.deque[jax.Array] = collections.deque()
    total: np.ndarray | None = None
    for matrix in counts:
        pending.append(matrix)
        if len(pending) > _BATCHES_IN_FLIGHT:
            total = _add(total, pending.popleft())
    for matrix in pending:
        total = _add(total, matrix)
    if total is None:
        raise DataError("there is no batch to evaluate: the data set is empty")
    return total


def _add(total: np.ndarray | None, matrix: jax.Array) -> np.ndarray:
    counts = np.asarray(matrix).astype(np.int64)
    return counts if total is None else total + counts
