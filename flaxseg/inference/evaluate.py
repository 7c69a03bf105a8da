"""Scores of a model on labelled batches."""

import collections
import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from flaxseg.data import Batch, pad_batch
from flaxseg.errors import ConfigError, DataError
from flaxseg.inference.boundary import boundary_counts
from flaxseg.inference.canvas import Canvases, fits_canvas, make_canvas_fns, on_corner, tiles
from flaxseg.inference.logits import make_logits_fn
from flaxseg.inference.metrics import Scores, confusion_matrix
from flaxseg.inference.more_metrics import BOUNDARY_IOU, SOFT_IOU, Totals, parse_metrics
from flaxseg.inference.windows import Size, Windows
from flaxseg.labels import IGNORE, LabelSet
from flaxseg.ops.soft_iou import soft_iou
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import DATA, batch_axes, put_batch, replicated

Evaluator = Callable[..., "Evaluation"]
"""(params, stats, batches, keep=(), watch=None) -> scores, and the label maps of the samples to
keep."""

Watch = Callable[[int, np.ndarray, np.ndarray], None]
"""Takes a sample's index, its label map and the predicted one, both (H, W) uint8."""

# Enough that the device never waits for the host, few enough that batches do not pile up.
_BATCHES_IN_FLIGHT = 4


class Evaluation(NamedTuple):
    """What an evaluation gives.

    Attributes:
        scores: of all samples.
        predictions: predicted label maps (H, W) uint8, of the samples that were to be kept, by
            their index.
    """

    scores: Scores
    predictions: dict[int, np.ndarray]


def evaluate(
    model: nnx.Module,
    batches: Iterable[Batch],
    *,
    labels: LabelSet,
    preprocess: Preprocess,
    mesh: Mesh | None = None,
    windows: Windows | None = None,
    metrics: Sequence[str] = (),
    canvases: Canvases | None = None,
    watch: Watch | None = None,
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
        windows: where the network looks at a picture; None looks at it as a whole.
        metrics: further scores, of `flaxseg.inference.more_metrics.METRICS`.
        canvases: see `make_evaluator`.
        watch: is called with every sample of a weight, once it is predicted; with several
            processes, all of them see all samples.

    Raises:
        ConfigError: the model has another number of classes, the mesh no axis "data", or a score
            is unknown.
        DataError: there is no batch, or a label is outside the label set.
    """
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    run = make_evaluator(graphdef, labels, preprocess, mesh, windows, metrics, canvases)
    if mesh is not None:
        params, stats = jax.device_put((params, stats), replicated(mesh))
    return run(params, stats, batches, watch=watch).scores


def make_evaluator(
    graphdef: nnx.GraphDef,
    labels: LabelSet,
    preprocess: Preprocess,
    mesh: Mesh | None = None,
    windows: Windows | None = None,
    metrics: Sequence[str] = (),
    canvases: Canvases | None = None,
) -> Evaluator:
    """A compiled evaluation, for a training loop whose weights change between calls.

    Args:
        graphdef: of `nnx.split(model, nnx.Param, nnx.BatchStat)`, in train or eval mode.
        labels: the classes the model knows.
        preprocess: how its images were normalised.
        mesh: devices to split every batch over, along the axes "data" and "fsdp" if there is one;
            the weights must lie on the same mesh, whole or split. With several processes every one
            is to give the same batches. None runs where the weights are.
        windows: where the network looks at a picture; None looks at it as a whole.
        metrics: further scores, of `flaxseg.inference.more_metrics.METRICS`.
        canvases: the sizes for which the network is compiled: pictures lie in the corners of them,
            and get what each would get alone. Two programs for each canvas serve pictures and label
            maps of all sizes. None, through windows, for "soft_iou" and for networks that do not
            take a canvas: a program for each shape of a batch.

    Returns:
        A function of the two other parts of the split, of batches, of the indices of samples whose
        predictions are to be kept, and of what is to watch all samples. It compiles once for each
        shape of a batch, however often it is called.

    Raises:
        ConfigError: the mesh has no axis "data", or a score is unknown.
    """
    place = _placement(mesh)
    wanted = parse_metrics(metrics, labels)

    def count(prediction: jax.Array, label: jax.Array, weight: jax.Array):
        matrix = confusion_matrix(prediction, label, labels.num_classes, weight)
        return _Counts(matrix, None), prediction.astype(jnp.uint8)

    def count_softly(logits: jax.Array, label: jax.Array, weight: jax.Array):
        counts, prediction = count(logits.argmax(axis=-1), label, weight)
        return counts._replace(soft_iou=_soft_iou(logits, label, weight)), prediction

    softly = SOFT_IOU in wanted
    compiled = make_logits_fn(
        graphdef,
        labels,
        preprocess,
        count_softly if softly else count,
        mesh=mesh,
        windows=windows,
        of_labels=not softly,
    )

    few = None if windows is not None or softly else canvases
    look, read = make_canvas_fns(graphdef, labels, preprocess, count, mesh)

    def run(
        params: nnx.State,
        stats: nnx.State,
        batches: Iterable[Batch],
        keep: Collection[int] = (),
        watch: Watch | None = None,
    ) -> Evaluation:
        kept: dict[int, np.ndarray] = {}
        boundaries = Boundaries(labels.num_classes) if BOUNDARY_IOU in wanted else None
        watches = [each for each in (watch, boundaries) if each is not None]
        config = nnx.merge(graphdef, params, stats).config

        def at_once(batch: Batch) -> Iterator[_Part]:
            image, label, weight, _ = place(batch)
            size = batch.label.shape[1:3]
            yield _Part(..., *compiled(params, stats, image, size, label, weight))

        def on_canvas(batch: Batch, size: Size) -> Iterator[_Part]:
            image, _, weight, _ = place(batch._replace(image=on_corner(batch.image, size)))
            picture, labelled = (
                np.array([x.shape[1:3]] * len(image), np.int32) for x in (batch.image, batch.label)
            )
            low = look(params, stats, image, picture)
            without_image = batch._replace(image=batch.image[:, :0])
            for tile in tiles(batch.label):
                label = place(without_image._replace(label=tile.label)).label
                where = (picture, labelled, tile.first)
                yield _Part(tile.within, *read(config, size, low, *where, label, weight))

        def counted(batch: Batch) -> Iterator[_Counts]:
            batch = check_batch(batch, labels)
            seen, shape = batch.image.shape[1:3], batch.label.shape[1:3]
            size = few.holding(seen) if few and fits_canvas(config, seen) else None
            pixels = _pixels(batch)
            samples = _wanted(batch, None if watches else keep)
            maps = [np.zeros(shape, np.uint8) for _ in samples]
            for part in on_canvas(batch, size) if size else at_once(batch):
                for (position, _), whole in zip(samples, maps, strict=True):
                    found = whole[part.within]
                    found[:] = np.asarray(part.prediction[position])[: len(found), : found.shape[1]]
                yield part.counts._replace(pixels=pixels)
                pixels = 0
            for (position, index), found in zip(samples, maps, strict=True):
                for each in watches:
                    each(index, np.asarray(batch.label[position]), found)
                if index in keep:
                    kept[index] = found

        totals = _total(counts for batch in batches for counts in counted(batch))
        if boundaries is not None:
            totals = dataclasses.replace(totals, boundaries=boundaries.counts)
        more = {name: metric(totals) for name, metric in wanted.items()}
        return Evaluation(Scores.from_matrix(totals.matrix, more), kept)

    return run


class _Part(NamedTuple):
    """What was found on a part of the label maps of a batch.

    Attributes:
        within: which of their pixels it is.
        counts: what it adds to the totals.
        prediction: class ids (B, H, W), from the upper left pixel of the part on.
    """

    within: Any
    counts: "_Counts"
    prediction: jax.Array


class _Counts(NamedTuple):
    """What a batch adds to the totals.

    Attributes:
        matrix: confusion matrix (K, K).
        soft_iou: sum of the soft IoUs, and their number, (2,); None where not asked for.
        pixels: of the pictures that count, labelled or not; None until the host has counted them.
    """

    matrix: jax.Array
    soft_iou: jax.Array | None
    pixels: int | None = None


def _soft_iou(logits: jax.Array, label: jax.Array, weight: jax.Array) -> jax.Array:
    values, labelled = soft_iou(logits, label)
    counts = labelled & (weight > 0)
    return jnp.stack([jnp.sum(jnp.where(counts, values, 0)), jnp.sum(counts.astype(values.dtype))])


class Boundaries:
    """Sums up the boundaries of samples.

    Attributes:
        counts: (2, K) int64, see `flaxseg.inference.boundary.boundary_counts`.
    """

    def __init__(self, num_classes: int):
        self.counts = np.zeros((2, num_classes), np.int64)

    def __call__(self, index: int, label: np.ndarray, prediction: np.ndarray) -> None:
        """Takes a sample: its index, true and predicted class ids, both (H, W)."""
        self.counts += boundary_counts(label, prediction, self.counts.shape[1])


def _wanted(batch: Batch, some: Collection[int] | None) -> list[tuple[int, int]]:
    """Position in the batch and index of all or some samples, without those that fill it up."""
    samples = enumerate(zip(batch.index, batch.weight, strict=True))
    return [
        (place, int(index))
        for place, (index, weight) in samples
        if weight and (some is None or index in some)
    ]


def _pixels(batch: Batch) -> int:
    return int((np.asarray(batch.weight) > 0).sum()) * batch.label[0].size


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


def check_batch(batch: Batch, labels: LabelSet) -> Batch:
    """The batch, once its labels are known to fit: the count itself would leave others out.

    Raises:
        DataError: one is outside the label set.
    """
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


def _total(counts: Iterator[_Counts]) -> Totals:
    """Sums in 64 bits, waiting only for the batches a few back."""
    pending: collections.deque[_Counts] = collections.deque()
    total: Any = None
    for count in counts:
        pending.append(count)
        if len(pending) > _BATCHES_IN_FLIGHT:
            total = _add(total, pending.popleft())
    for count in pending:
        total = _add(total, count)
    if total is None:
        raise DataError("there is no batch to evaluate: the data set is empty")
    soft = (0, 0) if total.soft_iou is None else total.soft_iou
    return Totals(total.matrix, int(total.pixels), float(soft[0]), int(soft[1]))


def _add(total: Any, count: _Counts) -> Any:
    here = jax.tree.map(_in_64_bits, count)
    return here if total is None else jax.tree.map(np.add, total, here)


def _in_64_bits(array: Any) -> np.ndarray:
    values = np.asarray(array)
    return values.astype(np.int64 if values.dtype.kind in "iu" else np.float64)
