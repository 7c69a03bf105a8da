"""Scores beside mIoU, against the numbers of those who use them."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console
from test_evaluate import data_mesh, make_batch

from convert.parity.golden_rule import image
from convert.parity.golden_rule import labels as golden_labels
from flaxseg.data import Batch
from flaxseg.errors import ConfigError
from flaxseg.inference import evaluate, scores_table
from flaxseg.inference.more_metrics import METRICS, Totals, parse_metrics
from flaxseg.labels import IGNORE, LabelSet
from flaxseg.models import Output
from flaxseg.models.blocks import AnySize
from flaxseg.preprocess import Preprocess


def scored(matrix, name, labels=None, pixels=0):
    (metric,) = parse_metrics([name], labels).values()
    return metric(Totals(np.array(matrix), pixels))


def test_micro_iou_as_torchmetrics_has_it():
    """MulticlassJaccardIndex(3, average="micro") of 256 drawn pixels, without class 1 and with."""
    matrix = [[20, 32, 22], [26, 31, 37], [31, 31, 26]]
    labels = LabelSet("pets", ("pet", "background", "border"), LabelSet.generic(3).palette)
    assert scored(matrix, "micro_iou:background", labels) == pytest.approx(0.2140, abs=5e-5)
    assert scored(matrix, "micro_iou") == pytest.approx(0.1770, abs=5e-5)


def test_accuracy_of_all_as_the_tutorials_have_it():
    """18 of 126 pixels, of which 7 are ignored."""
    matrix = np.zeros((5, 5), np.int64)
    matrix[np.arange(5), np.arange(5)] = (9, 2, 4, 2, 1)
    matrix[0, 1] = 119 - 18
    assert scored(matrix, "accuracy_of_all", pixels=126) == pytest.approx(0.14285714285714285)


class Known(nnx.Module):
    """Knows the logits of every picture, (N, H, W, K), by its one colour, the number 0 to N - 1."""

    def __init__(self, logits):
        self.config = AnySize()
        self.logits = nnx.Param(jnp.asarray(logits))

    def __call__(self, images):
        return Output(self.logits[...][jnp.round(images[:, 0, 0, 0]).astype(jnp.int32)])


def test_soft_iou_as_the_notebook_has_it():
    """Through the whole evaluation, in two batches, of recorded logits."""
    truth = golden_labels(1, 3, (2, 9, 7))
    truth = np.where(truth == IGNORE, 0, truth).astype(np.uint8)
    logits = image(103, (2, 3, 9, 7)).astype(np.float32).transpose(0, 2, 3, 1)
    batches = [
        Batch(np.full((1, 9, 7, 3), i, np.uint8), truth[[i]], np.ones(1, np.float32), np.array([i]))
        for i in range(2)
    ]
    scores = evaluate(
        Known(logits),
        batches,
        labels=LabelSet.generic(3),
        preprocess=Preprocess((0, 0, 0), (1 / 255, 1 / 255, 1 / 255)),
        metrics=["soft_iou"],
    )
    assert scores.more["soft_iou"] == pytest.approx(0.17779475113058252, rel=1e-6)


@pytest.mark.parametrize("devices", [None, 8])
def test_padding_does_not_count(pixel_model, labels, preprocess, devices):
    """Samples of weight 0, and those that fill a batch up for the devices."""
    whole = make_batch(6, padding=2)
    cut = Batch(*(array[:4] for array in whole))
    mesh = None if devices is None else data_mesh(devices)
    options = {"labels": labels, "preprocess": preprocess, "metrics": tuple(METRICS)}
    padded = evaluate(pixel_model, [whole], mesh=mesh, **options)
    alone = evaluate(pixel_model, [cut], **options)
    assert set(alone.more) == set(METRICS)
    assert padded.more == pytest.approx(alone.more, rel=1e-6)
    assert alone.more["accuracy_of_all"] < alone.pixel_accuracy


def test_a_picture_without_labels_has_no_soft_iou(pixel_model, labels, preprocess):
    batch = make_batch(3)
    options = {"labels": labels, "preprocess": preprocess, "metrics": ["soft_iou"]}
    alone = evaluate(pixel_model, [Batch(*(array[1:] for array in batch))], **options)
    batch.label[0] = IGNORE
    assert evaluate(pixel_model, [batch], **options).more == pytest.approx(alone.more, rel=1e-6)
    batch.label[:] = IGNORE
    assert np.isnan(evaluate(pixel_model, [batch], **options).more["soft_iou"])


def test_they_stand_below_the_table(pixel_model, labels, preprocess):
    options = {"labels": labels, "preprocess": preprocess, "metrics": ("micro_iou:sky",)}
    scores = evaluate(pixel_model, [make_batch(3)], **options)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(scores_table(scores, labels))
    value = scores.more["micro_iou:sky"]
    assert f"{100 * value:.2f}" in capture.get().splitlines()[-2]
    assert scores.to_dict()["micro_iou:sky"] == value


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["soft_iuo"], "--metrics 'soft_iuo' is unknown; did you mean soft_iou"),
        (["soft_iou:sky"], "--metrics soft_iou:sky: only micro_iou leaves a class out"),
        (["micro_iou", "micro_iou"], "--metrics names micro_iou twice"),
        (["micro_iou:skye"], "toys has no class 'skye'; did you mean sky"),
    ],
)
def test_mistakes_are_named(labels, texts, message):
    with pytest.raises(ConfigError, match=message):
        parse_metrics(texts, labels)
