"""Scores of a model that looks at each picture several times."""

import functools
from collections.abc import Iterable, Sequence

import numpy as np

from flaxseg.data import Batch, EvalTransform, Example
from flaxseg.errors import ConfigError, DataError
from flaxseg.inference.evaluate import Boundaries, Watch, check_batch
from flaxseg.inference.metrics import Scores
from flaxseg.inference.more_metrics import BOUNDARY_IOU, SOFT_IOU, Totals, parse_metrics
from flaxseg.inference.per_image import count_picture
from flaxseg.inference.predict import Predictor
from flaxseg.labels import LabelSet


def evaluate_views(
    predictor: Predictor,
    batches: Iterable[Batch],
    transform: EvalTransform,
    *,
    labels: LabelSet,
    metrics: Sequence[str] = (),
    watch: Watch | None = None,
) -> Scores:
    """Scores what a predictor says of every picture, at the size of its label map.

    Args:
        predictor: looks at the pictures at its `views`.
        batches: pictures and label maps of their own sizes. Samples of weight 0 do not count.
        transform: at which size pictures are seen at scale 1, and label maps compared.
        labels: the classes.
        metrics: further scores, of `flaxseg.inference.more_metrics.METRICS` all but "soft_iou".
        watch: is called with every sample of a weight, once it is predicted.

    Raises:
        ConfigError: a score is unknown, or is "soft_iou".
        DataError: there is no sample, or a label is outside the label set.
    """
    wanted = parse_metrics(metrics, labels)
    if SOFT_IOU in wanted:
        raise ConfigError(
            f"--metrics {SOFT_IOU} is of a single look at a picture: leave it out, or leave out "
            "--eval-scales and --eval-flip"
        )
    boundaries = Boundaries(labels.num_classes) if BOUNDARY_IOU in wanted else None
    matrix, pixels = np.zeros((labels.num_classes,) * 2, np.int64), 0
    for index, picture in _samples(batches, labels):
        label = transform(picture).label
        own = (picture.image.shape[0], picture.image.shape[1])
        photo = predictor.prepare(
            picture.image,
            size=functools.partial(transform.seen_size, own),
            interpolation=transform.interpolation,
            out_size=(label.shape[0], label.shape[1]),
        )
        (wait,) = predictor.start([photo])
        prediction = wait().label
        matrix += count_picture(label, prediction, labels.num_classes)
        pixels += label.size
        for each in (watch, boundaries):
            if each is not None:
                each(index, label, prediction)
    if not pixels:
        raise DataError("there is no batch to evaluate: the data set is empty")
    totals = Totals(matrix, pixels, boundaries=None if boundaries is None else boundaries.counts)
    return Scores.from_matrix(matrix, {name: metric(totals) for name, metric in wanted.items()})


def _samples(batches: Iterable[Batch], labels: LabelSet) -> Iterable[tuple[int, Example]]:
    for batch in batches:
        found = check_batch(batch, labels)
        for image, label, weight, index in zip(*found, strict=True):
            if weight:
                yield int(index), Example(image, label)
