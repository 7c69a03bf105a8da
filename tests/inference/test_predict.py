import jax
import numpy as np
import pytest
from flax import nnx

from flaxseg import native
from flaxseg.data import EvalTransform, Example
from flaxseg.errors import ConfigError, DataError
from flaxseg.inference import Predictor, make_label_fn
from flaxseg.labels import LabelSet
from flaxseg.models import eval_view
from flaxseg.ops import resize_bilinear
from flaxseg.preprocess import Preprocess


def plain_logits(model, image):
    return np.asarray(eval_view(model)(Preprocess()(image[None])).logits[0])


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (11, 17), (32, 64), (33, 31)])
def test_any_size_gives_a_map_of_that_size(pixel_model, labels, preprocess, size):
    """The model looks at single pixels, so that padding must change nothing."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    predictor = Predictor(pixel_model, labels, preprocess)
    expected = plain_logits(pixel_model, image)
    logits = predictor.logits(image)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    label = predictor.labels(image)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, expected.argmax(-1))


def test_sizes_that_round_to_the_same_share_one_compilation(pixel_model, labels, preprocess):
    predictor = Predictor(pixel_model, labels, preprocess)
    for size in [(1, 1), (32, 32), (7, 30), (33, 5), (64, 32)]:
        predictor.labels(np.zeros((*size, 3), np.uint8))
    assert preprocess.traces == [(1, 32, 32, 3), (1, 64, 32, 3)]


def test_the_padding_normalises_to_almost_zero(pixel_model, labels, photo):
    seen = []

    class Spy(Preprocess):
        def __call__(self, images):
            jax.debug.callback(lambda x: seen.append(np.asarray(x)), super().__call__(images))
            return super().__call__(images)

    Predictor(pixel_model, labels, Spy(), multiple=20).labels(photo)
    jax.effects_barrier()
    assert seen[0].shape == (1, 20, 20, 3)
    assert np.abs(seen[0][0, 11:]).max() < 0.01
    assert np.abs(seen[0][0, :, 17:]).max() < 0.01
    np.testing.assert_allclose(seen[0][0, :11, :17], Preprocess()(photo), atol=1e-6)


def test_blue_green_red_is_the_turned_photo(pixel_model, labels, photo):
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    found = Predictor(pixel_model, labels, Preprocess(mean, std, "bgr")).logits(photo)
    turned = Predictor(pixel_model, labels, Preprocess(mean[::-1], std[::-1]))
    np.testing.assert_array_equal(found, turned.logits(np.ascontiguousarray(photo[..., ::-1])))


def test_a_network_at_its_own_size(model_dir, photo):
    """Without padding the result is the network's own output, interpolated to the photo."""
    loaded = native.load_with_meta(model_dir)
    raw = plain_logits(loaded.model, photo)
    assert raw.shape[:2] == (16, 24)
    expected = resize_bilinear(raw[None], (11, 17))[0]
    logits = Predictor(*loaded, multiple=1).logits(photo)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_large_photos_are_segmented_at_max_side(pixel_model, labels, preprocess):
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 40:] = 255
    predictor = Predictor(pixel_model, labels, preprocess, multiple=1)
    label = predictor.labels(image, max_side=20)
    assert preprocess.traces == [(1, 10, 20, 3)]
    small = plain_logits(pixel_model, np.ascontiguousarray(image[::4, ::4]))
    expected = resize_bilinear(small[None], (40, 80), align_corners=False)[0].argmax(-1)
    np.testing.assert_array_equal(label, expected)
    own = predictor.labels(image, max_side=80)
    np.testing.assert_array_equal(own, plain_logits(pixel_model, image).argmax(-1))


@pytest.mark.parametrize("size", [(6, 4), (24, 8), (11, 17)])
def test_a_photo_is_stretched_and_its_logits_brought_back(
    pixel_model, labels, preprocess, photo, size
):
    predictor = Predictor(pixel_model, labels, preprocess, multiple=1)
    label = predictor.labels(photo, size=size, max_side=2)
    assert preprocess.traces == [(1, *size, 3)]
    stretched = EvalTransform(size)(Example(photo, np.zeros(photo.shape[:2], np.uint8))).image
    logits = plain_logits(pixel_model, stretched)
    logits = np.asarray(resize_bilinear(logits[None], (11, 17), align_corners=False)[0])
    chosen = np.take_along_axis(logits, label[..., None].astype(int), axis=-1)[..., 0]
    # Not the class itself: it is open where two logits agree but for rounding.
    np.testing.assert_allclose(chosen, logits.max(-1), atol=1e-5)
    assert label.shape == (11, 17) and len(np.unique(label)) > 1


def test_a_senseless_size_is_refused(pixel_model, labels, preprocess, photo):
    with pytest.raises(ConfigError, match="size is 0 4, it must be at least 1 pixel each"):
        Predictor(pixel_model, labels, preprocess).labels(photo, size=(0, 4))


def test_new_weights_change_the_labels_without_compiling(pixel_model, labels, preprocess, photo):
    graphdef, params, stats = nnx.split(pixel_model, nnx.Param, nnx.BatchStat)
    label_fn = make_label_fn(graphdef, labels, preprocess)
    first = label_fn(params, stats, photo[None])
    second = label_fn(jax.tree.map(lambda x: -x, params), stats, photo[None])
    assert first.dtype == np.uint8
    assert (first != second).any()
    assert len(preprocess.traces) == 1


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        [[[1, 2, 3]]],
    ],
)
def test_what_is_no_image_is_refused(pixel_model, labels, preprocess, image):
    predictor = Predictor(pixel_model, labels, preprocess)
    for method in (predictor.labels, predictor.logits):
        with pytest.raises(DataError, match=r"must be \(H, W, 3\) uint8 RGB, found .*read_image"):
            method(image)


@pytest.mark.parametrize("multiple", [0, -1, 1.5])
def test_a_senseless_multiple_is_refused(pixel_model, labels, preprocess, multiple):
    with pytest.raises(ConfigError, match=f"multiple is {multiple}, it must be a whole number"):
        Predictor(pixel_model, labels, preprocess, multiple=multiple)


def test_a_senseless_max_side_is_refused(pixel_model, labels, preprocess, photo):
    with pytest.raises(ConfigError, match="max_side is 0, it must be at least 1 pixel"):
        Predictor(pixel_model, labels, preprocess).labels(photo, max_side=0)


def test_another_number_of_classes_is_refused(pixel_model, preprocess, photo):
    predictor = Predictor(pixel_model, LabelSet.generic(3), preprocess)
    with pytest.raises(ConfigError, match="predicts 4 classes, label set 'generic' has 3"):
        predictor.labels(photo)
