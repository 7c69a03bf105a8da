import sys

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from flaxseg.data import Batch
from flaxseg.errors import ConfigError, DataError
from flaxseg.inference import confusion_matrix, evaluate, make_evaluator
from flaxseg.labels import IGNORE, LabelSet
from flaxseg.models import eval_view
from flaxseg.ops import resize_bilinear
from flaxseg.preprocess import Preprocess


def make_batch(size, *, pixels=(6, 5), padding=0, seed=0, num_classes=4):
    """Random pictures and labels; the last `padding` samples are not to be counted."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (size, *pixels, 3), np.uint8)
    label = rng.integers(0, num_classes, (size, *pixels)).astype(np.uint8)
    label[rng.random(label.shape) < 0.1] = IGNORE
    weight = np.float32(np.arange(size) < size - padding)
    return Batch(image, label, weight, np.arange(size, dtype=np.int32))


def plain_matrix(model, batches):
    """The matrix without jit, sharding or accumulation."""
    total = 0
    for batch in batches:
        logits = eval_view(model)(Preprocess()(batch.image)).logits
        prediction = resize_bilinear(logits, batch.label.shape[1:3]).argmax(-1)
        total = total + np.asarray(confusion_matrix(prediction, batch.label, 4, batch.weight))
    return total


def data_mesh(count, kind=AxisType.Auto):
    return jax.make_mesh((count,), ("data",), axis_types=(kind,), devices=jax.devices()[:count])


def test_batches_add_up(pixel_model, labels, preprocess):
    batches = [make_batch(3, padding=i == 6, seed=i) for i in range(7)]
    scores = evaluate(pixel_model, batches, labels=labels, preprocess=preprocess)
    np.testing.assert_array_equal(scores.matrix, plain_matrix(pixel_model, batches))
    valid = sum(((b.label != IGNORE) & (b.weight > 0)[:, None, None]).sum() for b in batches)
    assert scores.matrix.sum() == valid


def test_running_statistics_are_used_and_the_model_is_left_alone(pixel_model, labels, preprocess):
    before = jax.tree.map(np.asarray, nnx.state(pixel_model, nnx.BatchStat))
    evaluate(pixel_model, [make_batch(3)], labels=labels, preprocess=preprocess)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(pixel_model, nnx.BatchStat))
    assert pixel_model.norm.use_running_average is not True


def test_logits_are_enlarged_to_the_labels(pixel_model, labels, preprocess):
    pixel_model.shrink = 2
    batches = [make_batch(2, pixels=(7, 9))]
    scores = evaluate(pixel_model, batches, labels=labels, preprocess=preprocess)
    np.testing.assert_array_equal(scores.matrix, plain_matrix(pixel_model, batches))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_eight_devices_count_what_one_counts(pixel_model, labels, preprocess, kind):
    """A batch of 6 is no multiple of 8: it is filled up, and the filling does not count."""
    batches = [make_batch(6, padding=2, seed=i) for i in range(3)]
    mesh = data_mesh(8, kind)
    scores = evaluate(pixel_model, batches, labels=labels, preprocess=preprocess, mesh=mesh)
    np.testing.assert_array_equal(scores.matrix, plain_matrix(pixel_model, batches))


@pytest.mark.parametrize("devices", [None, 8])
def test_new_weights_do_not_compile_again(pixel_model, labels, preprocess, devices):
    mesh = None if devices is None else data_mesh(devices)
    graphdef, params, stats = nnx.split(pixel_model, nnx.Param, nnx.BatchStat)
    run = make_evaluator(graphdef, labels, preprocess, mesh)
    matrices = []
    for scale in (1.0, -1.0):
        weights = jax.tree.map(lambda x, scale=scale: scale * x, params)
        state = (weights, stats)
        if mesh is not None:
            state = jax.device_put(state, NamedSharding(mesh, P()))
        matrices.append(run(*state, [make_batch(4, seed=i) for i in range(3)]).scores.matrix)
    assert preprocess.traces == [(4 if devices is None else 8, 6, 5, 3)]
    assert (matrices[0] != matrices[1]).any()


def test_each_image_size_compiles_once(pixel_model, labels, preprocess):
    sizes = [(6, 5), (4, 4), (6, 5), (4, 4)]
    batches = [make_batch(2, pixels=size, seed=i) for i, size in enumerate(sizes)]
    scores = evaluate(pixel_model, batches, labels=labels, preprocess=preprocess)
    assert preprocess.traces == [(2, 6, 5, 3), (2, 4, 4, 3)]
    np.testing.assert_array_equal(scores.matrix, plain_matrix(pixel_model, batches))


@pytest.mark.parametrize("devices", [None, 8])
def test_predictions_of_chosen_samples_are_kept(pixel_model, labels, preprocess, devices):
    batches = [make_batch(3, seed=0), make_batch(3, seed=1, padding=1)]
    batches[1].index[:] = (3, 4, 0)  # what fills a batch up has index 0
    mesh = None if devices is None else data_mesh(devices)
    graphdef, params, stats = nnx.split(pixel_model, nnx.Param, nnx.BatchStat)
    if mesh is not None:
        params, stats = jax.device_put((params, stats), NamedSharding(mesh, P()))
    run = make_evaluator(graphdef, labels, preprocess, mesh)
    found = run(params, stats, batches, keep=[0, 4, 9])
    assert sorted(found.predictions) == [0, 4]
    for index, image in ((0, batches[0].image[0]), (4, batches[1].image[1])):
        expected = eval_view(pixel_model)(Preprocess()(image[None])).logits[0].argmax(-1)
        assert found.predictions[index].dtype == np.uint8
        np.testing.assert_array_equal(found.predictions[index], expected)
    assert run(params, stats, batches).predictions == {}


def test_totals_beyond_32_bits(pixel_model, labels, preprocess, monkeypatch):
    """Nine batches of 2**30 pixels overflow a 32-bit sum."""
    module = sys.modules["flaxseg.inference.evaluate"]
    full = jax.numpy.full((4, 4), 2**30, jax.numpy.int32)
    monkeypatch.setattr(module, "confusion_matrix", lambda *_: full)
    batches = [make_batch(1)] * 9
    scores = evaluate(pixel_model, batches, labels=labels, preprocess=preprocess)
    assert (scores.matrix == 9 * 2**30).all()


def test_nothing_to_evaluate_is_an_error(pixel_model, labels, preprocess):
    with pytest.raises(DataError, match="no batch to evaluate: the data set is empty"):
        evaluate(pixel_model, [], labels=labels, preprocess=preprocess)


def test_a_label_outside_the_set_is_an_error(pixel_model, labels, preprocess):
    batch = make_batch(3)
    batch.label[1, 2, 2] = 4
    with pytest.raises(DataError, match=r"label 4 in sample 1 is outside 0 to 3.*'toys'.* 255"):
        evaluate(pixel_model, [batch], labels=labels, preprocess=preprocess)


def test_another_number_of_classes_is_an_error(pixel_model, preprocess):
    labels = LabelSet.generic(7)
    with pytest.raises(ConfigError, match="predicts 4 classes, label set 'generic' has 7: give"):
        evaluate(pixel_model, [make_batch(1)], labels=labels, preprocess=preprocess)


def test_a_mesh_without_data_axis_is_an_error(pixel_model, labels, preprocess):
    mesh = jax.make_mesh((1,), ("model",), devices=jax.devices()[:1])
    with pytest.raises(ConfigError, match=r"the mesh has the axes \('model',\).* named 'data'"):
        evaluate(pixel_model, [], labels=labels, preprocess=preprocess, mesh=mesh)
