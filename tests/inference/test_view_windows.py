"""Pictures looked at through windows: where those lie, and what becomes of their logits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_evaluate import data_mesh, make_batch, plain_matrix

from flaxseg import native
from flaxseg.data import Batch
from flaxseg.errors import ConfigError
from flaxseg.inference import Predictor, evaluate
from flaxseg.inference.windows import Windows, make_windows, windowed, windowed_strips
from flaxseg.models import eval_view
from flaxseg.preprocess import Preprocess


def slid(length, side, stride):
    """Where mmsegmentation's sliding windows start along an axis."""
    starts = []
    for number in range(max(length - side + stride - 1, 0) // stride + 1):
        end = min(number * stride + side, length)
        starts.append(max(end - side, 0))
    return starts


@pytest.mark.parametrize("stride", [(341, 341), (512, 512), (512, 1), (200, 340)])
def test_windows_lie_where_mmsegmentation_has_them(stride):
    windows = Windows((512, 512), stride)
    for shape in itertools.product((1, 511, 512, 513, 683, 853), (512, 854, 1024, 2048)):
        rows, columns = (slid(n, 512, s) for n, s in zip(shape, stride, strict=True))
        assert windows.corners(shape) == list(itertools.product(rows, columns))


def test_strides_are_two_thirds_unless_given():
    assert make_windows((768, 512), None) == Windows((768, 512), (512, 341))
    assert make_windows((1, 1), None) == Windows((1, 1), (1, 1))
    assert make_windows((4, 5), (2, 5)) == Windows((4, 5), (2, 5))
    assert make_windows(None, None) is None


@pytest.mark.parametrize("stride", [(5, 4), (4, 0)])
def test_strides_that_leave_pixels_out_are_refused(stride):
    with pytest.raises(ConfigError, match="4 x 4 pixels every .*: give strides from 1 to the"):
        Windows((4, 4), stride)


def test_overlaps_are_averaged():
    """The logits of each window are its own mean colour and a ramp over its rows."""

    @jax.jit
    def look(images):
        means = images.mean(axis=(1, 2), keepdims=True)
        return means + jnp.arange(images.shape[1])[:, None, None] + jnp.zeros((4, 3, 3))

    images = np.random.default_rng(0).random((2, 7, 5, 3)).astype(np.float32)
    windows = Windows((4, 3), (2, 2))
    total, seen = np.zeros((2, 7, 5, 3)), np.zeros((7, 5, 1))
    for y, x in [(y, x) for y in (0, 2, 3) for x in (0, 2)]:
        part = images[:, y : y + 4, x : x + 3].mean(axis=(1, 2), keepdims=True)
        total[:, y : y + 4, x : x + 3] += part + np.arange(4)[:, None, None]
        seen[y : y + 4, x : x + 3] += 1
    logits = windowed(look, jnp.asarray(images), windows)
    np.testing.assert_allclose(logits, total / seen, rtol=1e-6)


SHAPES = [(7, 5), (4, 3), (2, 9), (9, 2), (1, 1), (13, 8)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("windows", [Windows((4, 3), (2, 2)), Windows((5, 4), (5, 1))])
def test_strips_hold_the_same_numbers(shape, windows):
    heights = []

    @jax.jit
    def look(images):
        return jnp.sin(images.cumsum(1) + images.cumsum(2)) @ jnp.arange(12.0).reshape(3, 4)

    @jax.jit
    def read(total, seen):
        heights.append(total.shape[1])
        return total / seen

    images = jnp.asarray(np.random.default_rng(0).random((2, *shape, 3)), jnp.float32)
    whole = windowed(look, images, windows)
    strips = windowed_strips(look, images, windows, read)
    np.testing.assert_array_equal(strips, whole)
    assert heights == [min(windows.size[0], shape[0])]  # one program, and never more rows


def test_large_photos_are_seen_at_their_own_size_through_windows(pixel_model, labels, preprocess):
    """As in the evaluation; without windows they are shrunk."""
    windows = Windows((8, 12), (5, 7))
    image = np.random.default_rng(0).integers(0, 256, (60, 44, 3), np.uint8)
    predictor = Predictor(pixel_model, labels, preprocess, windows=windows)
    label = predictor.labels(image, max_side=20)
    assert preprocess.traces == [(1, 8, 12, 3)]
    batch = Batch(image[None], label[None], np.ones(1, np.float32), np.zeros(1, np.int32))
    options = {"labels": labels, "preprocess": preprocess, "windows": windows}
    matrix = evaluate(pixel_model, [batch], **options).matrix
    np.testing.assert_array_equal(matrix, np.diag(np.bincount(label.ravel(), minlength=4)))
    assert len(np.unique(label)) > 1


@pytest.mark.parametrize("devices", [None, 8])
def test_windows_count_what_a_network_of_pixels_sees(pixel_model, labels, preprocess, devices):
    """One program serves all windows, of pictures of any size."""
    mesh = None if devices is None else data_mesh(devices)
    sizes = [(9, 7), (6, 12)]
    batches = [make_batch(6, pixels=size, padding=2, seed=i) for i, size in enumerate(sizes)]
    options = {"labels": labels, "preprocess": preprocess, "mesh": mesh}
    scores = evaluate(pixel_model, batches, windows=Windows((4, 5), (3, 2)), **options)
    np.testing.assert_array_equal(scores.matrix, plain_matrix(pixel_model, batches))
    assert preprocess.traces == [(8 if devices else 6, 4, 5, 3)]


def test_a_network_sees_one_window_at_a_time(model_dir):
    loaded = native.load_with_meta(model_dir)
    image = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)

    def look(part):
        return np.asarray(eval_view(loaded.model)(Preprocess()(part[None])).logits[0])

    total, seen = np.zeros((24, 40, 6)), np.zeros((24, 40, 1))
    for x in (0, 12, 16):
        total[:, x : x + 24] += look(image[:, x : x + 24])
        seen[:, x : x + 24] += 1
    predictor = Predictor(*loaded, windows=Windows((24, 24), (24, 12)))
    np.testing.assert_allclose(predictor.logits(image), total / seen, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(predictor.labels(image), (total / seen).argmax(-1))


def test_logits_are_enlarged_to_larger_label_maps(pixel_model, labels, preprocess):
    """With and without windows alike; pictures of one size share one program of the network."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 4, 6, 3), np.uint8)
    batches = [
        Batch(image, rng.integers(0, 4, (2, *size)).astype(np.uint8), np.ones(2), np.arange(2))
        for size in [(8, 12), (5, 9)]
    ]
    expected = plain_matrix(pixel_model, batches)
    options = {"labels": labels, "preprocess": preprocess}
    whole = evaluate(pixel_model, batches, **options)
    assert preprocess.traces == [(2, 4, 6, 3)]
    np.testing.assert_array_equal(whole.matrix, expected)
    seen = evaluate(pixel_model, batches, windows=Windows((4, 4), (4, 1)), **options)
    np.testing.assert_array_equal(seen.matrix, expected)
