import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from flaxseg.errors import ConfigError
from flaxseg.inference import Scores, confusion_matrix, scores_table
from flaxseg.inference.metrics import _count_by_product, _count_by_scatter
from flaxseg.labels import IGNORE, LabelSet


def random_maps(num_classes, shape=(3, 9, 7), seed=0):
    rng = np.random.default_rng(seed)
    prediction = rng.integers(0, num_classes, shape)
    label = rng.integers(0, num_classes, shape).astype(np.uint8)
    label[rng.random(shape) < 0.1] = IGNORE
    return prediction, label


def counted_one_by_one(prediction, label, num_classes):
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for p, t in zip(prediction.ravel(), label.ravel(), strict=True):
        if t != IGNORE:
            matrix[t, p] += 1
    return matrix


@pytest.mark.parametrize("num_classes", [1, 5, 150, 255])
def test_counts_equal_those_of_a_loop(num_classes):
    prediction, label = random_maps(num_classes)
    expected = counted_one_by_one(prediction, label, num_classes)
    got = jax.jit(functools.partial(confusion_matrix, num_classes=num_classes))(prediction, label)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("num_classes", [1, 5, 150])
def test_both_forms_of_counting_agree(num_classes):
    prediction, label = random_maps(num_classes)
    label = np.where(label == IGNORE, num_classes, label).astype(np.int32)
    by_product = _count_by_product(jnp.asarray(prediction), jnp.asarray(label), num_classes)
    by_scatter = _count_by_scatter(jnp.asarray(prediction), jnp.asarray(label), num_classes)
    assert by_product.sum() > 0
    np.testing.assert_array_equal(by_product, by_scatter)


def test_samples_of_weight_zero_do_not_count():
    prediction, label = random_maps(5)
    got = confusion_matrix(prediction, label, 5, weight=np.float32([1, 0, 1]))
    np.testing.assert_array_equal(got, counted_one_by_one(prediction[::2], label[::2], 5))


def test_ids_that_are_no_class_do_not_spill_into_other_cells():
    prediction, label = np.array([[[0, 5, -1, 1]]]), np.array([[[1, 1, 1, -2]]])
    np.testing.assert_array_equal(confusion_matrix(prediction, label, 2), [[0, 0], [1, 0]])


def test_a_count_beyond_float32_stays_exact():
    """One pixel more than 2**24 is where a sum of float32 ones stops growing."""
    label = np.zeros((1, 2**12 + 1, 2**12), np.uint8)
    got = jax.jit(functools.partial(confusion_matrix, num_classes=2))(label, label)
    assert int(got[0, 0]) == label.size > 2**24


def test_wrong_shapes_are_named():
    maps = np.zeros((2, 3, 3), int)
    with pytest.raises(ConfigError, match=r"prediction \(2, 3, 3\) and label \(3, 3\) must both"):
        confusion_matrix(maps, maps[0], 2)
    with pytest.raises(ConfigError, match=r"weight \(3,\) must be \(B,\) = \(2,\)"):
        confusion_matrix(maps, maps, 2, np.ones(3))


def test_a_batch_too_large_for_int32_is_refused():
    maps = jax.ShapeDtypeStruct((2**11, 2**10, 2**10), jnp.uint8)
    with pytest.raises(ConfigError, match="too large to count: at most 2147483647"):
        jax.eval_shape(functools.partial(confusion_matrix, num_classes=2), maps, maps)


def test_scores_equal_mmsegmentation():
    """Numbers of mmsegmentation's IoUMetric on the same random logits and labels."""
    logits = 2 * np.random.default_rng(101).standard_normal((2, 5, 9, 7)).astype(np.float32)
    rng = np.random.default_rng(1001)
    label = rng.integers(0, 5, size=(2, 9, 7)).astype(np.int64)
    label[rng.random((2, 9, 7)) < 0.05] = IGNORE
    matrix = np.asarray(confusion_matrix(logits.argmax(axis=1), label, 5))
    scores = Scores.from_matrix(matrix)

    intersect, union = np.array([9, 2, 4, 2, 1]), np.array([49, 48, 45, 40, 38])
    np.testing.assert_array_equal(matrix.sum(axis=0), [28, 23, 28, 22, 18])
    np.testing.assert_array_equal(matrix.sum(axis=1), [30, 27, 21, 20, 21])
    np.testing.assert_array_equal(matrix.diagonal(), intersect)
    np.testing.assert_allclose(scores.iou, intersect / union, rtol=1e-12)
    dice = 2 * intersect / (np.array([28, 23, 28, 22, 18]) + np.array([30, 27, 21, 20, 21]))
    np.testing.assert_allclose(scores.dice, dice, rtol=1e-12)
    np.testing.assert_allclose(scores.mean_dice, dice.mean(), rtol=1e-12)
    # mmsegmentation computes in float32.
    np.testing.assert_allclose(scores.miou, 0.07810896635055542, rtol=1e-6)
    np.testing.assert_allclose(scores.pixel_accuracy, 0.15126051008701324, rtol=1e-6)
    np.testing.assert_allclose(scores.mean_accuracy, 0.14243386685848236, rtol=1e-6)


def test_a_class_that_occurs_nowhere_does_not_enter_the_means():
    scores = Scores.from_matrix(np.array([[6, 2, 0], [0, 2, 0], [0, 0, 0]]))
    np.testing.assert_allclose(scores.iou, [6 / 8, 2 / 4, np.nan])
    np.testing.assert_allclose(scores.frequency, [0.8, 0.2, 0.0])
    assert scores.miou == pytest.approx((6 / 8 + 2 / 4) / 2)
    np.testing.assert_allclose(scores.dice, [12 / 14, 4 / 6, np.nan])
    assert scores.mean_dice == pytest.approx((12 / 14 + 4 / 6) / 2)
    assert scores.mean_accuracy == pytest.approx((6 / 8 + 1) / 2)


def test_a_class_only_predicted_counts_against_the_iou_alone():
    scores = Scores.from_matrix(np.array([[3, 1], [0, 0]]))
    np.testing.assert_allclose(scores.iou, [3 / 4, 0.0])
    np.testing.assert_allclose(scores.accuracy, [3 / 4, np.nan])
    assert (scores.miou, scores.mean_accuracy) == (pytest.approx(3 / 8), pytest.approx(3 / 4))


def test_scores_without_pixels_are_nan_and_none_in_json():
    scores = Scores.from_matrix(np.zeros((2, 2), np.int32))
    assert np.isnan([scores.miou, scores.pixel_accuracy, scores.mean_accuracy]).all()
    values = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert values["miou"] is None
    assert values["iou"] == [None, None]
    assert values["pixels"] == 0


def test_scores_of_more_pixels_than_int32_holds():
    scores = Scores.from_matrix(np.diag([2**40, 1]))
    assert scores.matrix.dtype == np.int64
    assert scores.to_dict()["pixels"] == 2**40 + 1
    assert scores.pixel_accuracy == 1.0


@pytest.mark.parametrize("matrix", [np.zeros((2, 3), int), np.zeros((2, 2)), np.zeros(4, int)])
def test_what_is_no_confusion_matrix_is_refused(matrix):
    with pytest.raises(ConfigError, match=r"a confusion matrix is \(K, K\) and holds whole number"):
        Scores.from_matrix(matrix)


def test_the_table_names_every_class():
    labels = LabelSet("toys", ("car", "tree", "sky"), LabelSet.generic(3).palette)
    scores = Scores.from_matrix(np.array([[6, 2, 0], [0, 2, 0], [0, 0, 0]]))
    console = Console(width=100)
    with console.capture() as capture:
        console.print(scores_table(scores, labels))
    rows = [line.strip("│").split("│") for line in capture.get().splitlines()]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows if len(row) > 1}
    assert cells == {
        "car": ["75.00", "75.00", "85.71", "80.00"],
        "tree": ["50.00", "100.00", "66.67", "20.00"],
        "sky": ["-", "-", "-", "0.00"],
        "mean": ["62.50", "87.50", "76.19", ""],
        "all pixels": ["", "80.00", "", ""],
    }


def test_the_table_wants_the_names_of_its_classes():
    scores = Scores.from_matrix(np.eye(3, dtype=int))
    with pytest.raises(ConfigError, match="the scores are of 3 classes, label set 'generic' has 2"):
        scores_table(scores, LabelSet.generic(2))
