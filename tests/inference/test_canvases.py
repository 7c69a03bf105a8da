"""Pictures of many sizes through few programs, and labels without the logits of all pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxseg import models
from flaxseg.data import Batch
from flaxseg.inference import Predictor, evaluate
from flaxseg.inference.canvas import Canvases
from flaxseg.inference.logits import image_labels, image_logits
from flaxseg.inference.per_image import PictureLog
from flaxseg.inference.views import Views
from flaxseg.labels import IGNORE, LabelSet
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import make_mesh

LABELS = LabelSet.generic(5)
CANVASES = Canvases(((64, 64), (64, 128)))
SIZES = [(50, 61), (64, 40), (60, 110)]


@pytest.fixture(scope="module")
def network():
    """Its logits are interpolated with `align_corners`, and twice where sides are no eights."""
    tiny = {"backbone.width": 2, "backbone.blocks": (1, 1, 1, 1), "channels": 8}
    model = models.create_model("ccnet", 5, rngs=nnx.Rngs(0), **tiny)
    rng = np.random.default_rng(0)
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape), state))
    return model


@functools.cache
def plain_run():
    return nnx.jit(lambda m, x: image_logits(m, LABELS, Preprocess(), x)[0])


def plain_logits(network, image):
    return plain_run()(network, image[None])


def drawn(*size):
    return np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), np.uint8)


def test_which_canvas_holds_a_picture():
    within = Canvases.within(2048)
    assert within.sizes == [(512, 512), (1024, 1024), (1536, 2048), (2048, 2048)]
    assert within.holding((513, 20)) == (1024, 1024)
    assert within.holding((2049, 20)) is None
    fitted = Canvases.fitted((2048, 512))
    assert fitted.sizes == [(512, 768), (768, 512), (512, 2048), (2048, 512)]
    assert all(fitted.holding(size) for size in [(512, 683), (1500, 512), (512, 2048)])
    assert Canvases.fitted((512, 512)).sizes == [(512, 512)]


def test_photos_of_many_sizes_compile_a_program_for_each_canvas(network, preprocess):
    """In batches of two: full ones, and such that are filled up."""
    predictor = Predictor(network, LABELS, preprocess, canvases=CANVASES, batch_size=2)
    together = predictor.start([predictor.prepare(drawn(*size)) for size in SIZES[:2]])
    for size, wait in zip(SIZES[:2], together, strict=True):
        expected = plain_logits(network, drawn(*size))
        np.testing.assert_array_equal(wait().label, expected.argmax(-1))
    for size in SIZES:
        photo = drawn(*size)
        expected = plain_logits(network, photo)
        logits = predictor.logits(photo)
        assert logits.shape == (*size, 5)
        np.testing.assert_allclose(logits, expected, atol=2e-5 * np.abs(expected).max())
        label = predictor.labels(photo)
        np.testing.assert_array_equal(label, expected.argmax(-1))
        assert len(np.unique(label)) > 1
    assert preprocess.traces == [(2, 64, 64, 3), (2, 64, 128, 3)]


def test_a_shrunk_photo_gets_labels_at_its_own_size(network, preprocess):
    photo = drawn(80, 100)
    on_canvas = Predictor(network, LABELS, preprocess, canvases=CANVASES)
    alone = Predictor(network, LABELS, Preprocess(), multiple=1)
    label = on_canvas.labels(photo, max_side=60)
    np.testing.assert_array_equal(label, alone.labels(photo, max_side=60))
    assert preprocess.traces == [(1, 64, 64, 3)]


def test_a_photo_that_fits_nowhere_has_a_program_of_its_own(network, preprocess):
    label = Predictor(network, LABELS, preprocess, canvases=CANVASES).labels(drawn(80, 70))
    assert preprocess.traces == [(1, 80, 70, 3)]
    np.testing.assert_array_equal(label, plain_logits(network, drawn(80, 70)).argmax(-1))


def test_a_photo_too_small_for_the_network_is_filled_up(preprocess):
    """On a canvas its attention would have no key."""
    tiny = {"backbone.widths": (4,), "backbone.depths": (1,), "channels": 4}
    tiny |= {"backbone.heads": (1,), "backbone.reductions": (4,)}
    network = models.create_model("segformer_b0", 5, rngs=nnx.Rngs(0), **tiny)
    predictor = Predictor(network, LABELS, preprocess, canvases=CANVASES)
    assert np.isfinite(predictor.logits(drawn(9, 40))).all()
    assert preprocess.traces == [(1, 32, 64, 3)]


def labelled(size, label_size, index):
    rng = np.random.default_rng(index)
    label = rng.integers(0, 5, (2, *label_size)).astype(np.uint8)
    label[:, :3] = IGNORE
    images = np.stack([drawn(*size)] * 2)
    indices = np.array([2 * index, 2 * index + 1], np.int32)
    return Batch(images, label, np.array([1, index % 2], np.float32), indices)


def test_an_evaluation_on_canvases_counts_what_another_counts(network, preprocess, monkeypatch):
    """Label maps of the pictures' sizes and of others, in one tile and in several."""
    monkeypatch.setattr("flaxseg.inference.canvas.TILE", 64)
    sizes = [(SIZES[0], SIZES[0]), (SIZES[2], (55, 130))]
    batches = [labelled(*both, index) for index, both in enumerate(sizes)]
    logs = [PictureLog(5), PictureLog(5)]
    options = {"canvases": CANVASES, "watch": logs[0]}
    scores = evaluate(network, batches, labels=LABELS, preprocess=preprocess, **options)
    assert preprocess.traces == [(2, 64, 64, 3), (2, 64, 128, 3)]
    plain = evaluate(network, batches, labels=LABELS, preprocess=Preprocess(), watch=logs[1])
    np.testing.assert_array_equal(scores.matrix, plain.matrix)
    assert scores.pixel_accuracy > 0
    one_by_one, expected = (log.per_image(["a", "b", "c"]).matrices for log in logs)
    np.testing.assert_array_equal(one_by_one, expected)
    np.testing.assert_array_equal(one_by_one.sum(0), scores.matrix)


@pytest.mark.parametrize("name", ["segformer_b0", "ccnet"])
def test_labels_need_no_logits_of_all_pixels(name):
    """At sizes between which one interpolation lies; only shapes and a random head matter."""
    tiny = {
        "segformer_b0": {"backbone.widths": (4,), "backbone.depths": (1,), "channels": 4},
        "ccnet": {"backbone.width": 2, "backbone.blocks": (1, 1, 1, 1), "channels": 8},
    }[name]
    if name == "segformer_b0":
        tiny |= {"backbone.heads": (1,), "backbone.reductions": (4,)}
    many = LabelSet.generic(60)
    model = models.create_model(name, 60, rngs=nnx.Rngs(0), **tiny)
    graphdef, state = nnx.split(model)
    images = np.random.default_rng(0).integers(0, 256, (1, 128, 160, 3), np.uint8)

    @jax.jit
    def labels(state, images):
        return image_labels(nnx.merge(graphdef, state), many, Preprocess(), images)

    @jax.jit
    def logits(state, images):
        return image_logits(nnx.merge(graphdef, state), many, Preprocess(), images)

    expected = jnp.argmax(logits(state, images), -1)
    np.testing.assert_array_equal(labels(state, images), expected)
    large = "f32[1,128,160,60]"
    assert large in str(jax.make_jaxpr(logits)(state, images))
    assert large not in str(jax.make_jaxpr(labels)(state, images))
    assert len(np.unique(expected)) > 1


def test_a_batch_on_a_canvas_looks_at_mirrored_pictures_too(network, preprocess):
    """Two photos and two blanks over two devices. Its logits are large, so rounding is seen."""
    predictor = Predictor(
        network,
        LABELS,
        preprocess,
        canvases=CANVASES,
        views=Views(flip=True),
        batch_size=3,
        mesh=make_mesh(jax.local_devices()[:2]),
    )
    photos = [drawn(*size) for size in SIZES[:2]]
    waits = predictor.start([predictor.prepare(photo) for photo in photos], "probabilities")
    for photo, wait in zip(photos, waits, strict=True):
        mirrored = plain_logits(network, np.ascontiguousarray(photo[:, ::-1]))[:, ::-1]
        both = jnp.stack([plain_logits(network, photo), mirrored])
        expected = np.asarray(jax.nn.softmax(both, -1).mean(0))
        found = wait()
        np.testing.assert_allclose(found.confidence, expected.max(-1), atol=5e-4)
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-3)
        chosen = np.take_along_axis(expected, found.label[..., None].astype(int), -1)[..., 0]
        np.testing.assert_allclose(chosen, expected.max(-1), atol=5e-4)
    assert preprocess.traces == [(4, 64, 64, 3)]
