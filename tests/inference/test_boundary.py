"""Boundary IoU, against one that looks at every pair of pixels."""

import numpy as np
import pytest
from test_evaluate import data_mesh, make_batch

from flaxseg.data import Batch
from flaxseg.inference import evaluate
from flaxseg.inference.boundary import boundary_counts, boundary_width
from flaxseg.labels import IGNORE


def slow_border(mask):
    """Pixels of a mask with one beyond it, or beyond the picture, no further off than the width."""
    height, width = mask.shape
    d = boundary_width(height, width)
    border = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        around = [(y + i, x + j) for i in range(-d, d + 1) for j in range(-d, d + 1)]
        border[y, x] = any(
            not (0 <= i < height and 0 <= j < width) or not mask[i, j] for i, j in around
        )
    return border


def slow_counts(label, prediction, num_classes):
    prediction = np.where(label == IGNORE, IGNORE, prediction)
    borders = [[slow_border(ids == k) for k in range(num_classes)] for ids in (label, prediction)]
    both = [(a & b).sum() for a, b in zip(*borders, strict=True)]
    either = [(a | b).sum() for a, b in zip(*borders, strict=True)]
    return np.array([both, either])


def blobs(seed, size, num_classes):
    """A label map of rectangles over each other."""
    rng = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    for k in rng.permutation(np.repeat([*range(1, num_classes), IGNORE], 2)):
        top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
        label[top : top + rng.integers(3, 25), left : left + rng.integers(3, 25)] = k
    return label


@pytest.mark.parametrize("size", [(60, 80), (9, 31), (1, 1)])
def test_counts_equal_those_of_every_pair(size):
    label = blobs(0, size, 4)
    prediction = np.roll(np.where(label == IGNORE, 3, label).astype(np.uint8), 1, axis=1)
    got = boundary_counts(label, prediction, 5)
    np.testing.assert_array_equal(got, slow_counts(label, prediction, 5))
    assert got[1, 4] == 0
    if size == (60, 80):
        assert (0 < got[0, :4]).all() and (got[0, :4] < got[1, :4]).all()


def test_the_width_is_that_of_the_paper():
    """round(0.02 · diagonal), at least 1: 16 for a COCO picture, 46 for one of Cityscapes."""
    assert [boundary_width(*size) for size in ((480, 640), (1024, 2048), (6, 5))] == [16, 46, 1]


@pytest.mark.parametrize("devices", [None, 8])
def test_pictures_add_up(pixel_model, labels, preprocess, devices):
    """As sums of intersections and unions, whatever the batches; what fills up does not count."""
    batches = [make_batch(6, padding=2, seed=i) for i in range(2)]
    mesh = None if devices is None else data_mesh(devices)
    found = []
    options = {"labels": labels, "preprocess": preprocess, "metrics": ["boundary_iou"]}
    scores = evaluate(
        pixel_model, batches, mesh=mesh, watch=lambda *pair: found.append(pair), **options
    )
    assert [index for index, *_ in found] == [0, 1, 2, 3] * 2
    both, either = sum(slow_counts(*maps, 4) for _, *maps in found)
    np.testing.assert_allclose(scores.by_class["boundary_iou"], both / either)
    assert scores.more["boundary_iou"] == pytest.approx((both / either).mean())
    cut = [Batch(*(array[:4] for array in batch)) for batch in batches]
    assert evaluate(pixel_model, cut, **options).more == scores.more
