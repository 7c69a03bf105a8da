"""Scales, mirrored pictures and windows against plain NumPy in 64 bits."""

import itertools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxseg.errors import ConfigError
from flaxseg.inference import Predictor
from flaxseg.inference.views import Views, scaled
from flaxseg.inference.windows import Windows
from flaxseg.models import Output
from flaxseg.models.blocks import AnySize
from flaxseg.preprocess import Preprocess

CLASSES, SHAPE = 4, (11, 17)
WEIGHTS = np.random.default_rng(3).normal(size=(2, 3, CLASSES)).astype(np.float32)


class Neighbour(nnx.Module):
    """Sees a pixel and the one to the right of it: a mirrored picture is another one."""

    def __init__(self):
        self.config = AnySize()
        self.weights = nnx.Param(jnp.asarray(WEIGHTS))

    def __call__(self, images: jax.Array) -> Output:
        right = jnp.pad(images[:, :, 1:], ((0, 0), (0, 0), (0, 1), (0, 0)))
        own, beside = self.weights[...]
        # Exact: NumPy's are in 64 bits.
        exact = jax.lax.Precision.HIGHEST
        return Output(
            jnp.matmul(images, own, precision=exact) + jnp.matmul(right, beside, precision=exact)
        )


def plain_logits(image):
    x = (image / 255 - np.array(Preprocess().mean)) / np.array(Preprocess().std)
    right = np.concatenate((x[:, 1:], np.zeros_like(x[:, :1])), 1)
    return x @ WEIGHTS[0].astype(float) + right @ WEIGHTS[1].astype(float)


def plain_windows(image, side, stride):
    """Mean of the logits of all windows, as mmsegmentation's mode "slide" places them."""
    total, seen = np.zeros((*image.shape[:2], CLASSES)), np.zeros((*image.shape[:2], 1))
    starts = []
    for length, window, step in zip(image.shape[:2], side, stride, strict=True):
        count = max(length - window + step - 1, 0) // step + 1
        starts.append([max(min(i * step + window, length) - window, 0) for i in range(count)])
    for y, x in itertools.product(*starts):
        part = np.s_[y : y + side[0], x : x + side[1]]
        total[part] += plain_logits(image[part])
        seen[part] += 1
    return total / seen


def plain_resize(x, size):
    for axis, out in enumerate(size):
        n = x.shape[axis]
        at = np.clip((np.arange(out) + 0.5) * n / out - 0.5, 0, n - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if i == axis else 1 for i in range(3)])
        above = np.take(x, np.minimum(low + 1, n - 1), axis)
        x = (1 - share) * np.take(x, low, axis) + share * above
    return x


def plain_mean(image, scales, flip, look):
    found = []
    for scale, mirrored in itertools.product(scales, (False, True)[: 1 + flip]):
        size = [int(side * scale + 0.5) for side in image.shape[:2]]
        seen = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
        seen = seen[:, ::-1] if mirrored else seen
        logits = plain_resize(look(seen), image.shape[:2])
        power = np.exp(logits - logits.max(-1, keepdims=True))
        share = power / power.sum(-1, keepdims=True)
        found.append(share[:, ::-1] if mirrored else share)
    return np.mean(found, 0)


SIDE, STRIDE = (5, 6), (3, 4)


@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize(
    ("scales", "flip"), [((1.0,), False), ((1.0,), True), ((0.5, 1.0, 1.5), True)]
)
def test_views_are_those_of_numpy(labels, photo, through, scales, flip):
    predictor = Predictor(
        Neighbour(),
        labels,
        Preprocess(),
        multiple=None if through else 1,
        windows=Windows(SIDE, STRIDE) if through else None,
        views=Views(scales, flip),
        batch_size=4,
    )
    look = (lambda image: plain_windows(image, SIDE, STRIDE)) if through else plain_logits
    expected = plain_mean(photo, scales, flip, look)
    found = predictor.probabilities(photo)
    assert found.shape == (*SHAPE, CLASSES) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    (wait,) = predictor.start([predictor.prepare(photo)], "probabilities")
    pixels = wait()
    np.testing.assert_array_equal(pixels.label, expected.argmax(-1))
    np.testing.assert_allclose(pixels.confidence, expected.max(-1), atol=1e-6)
    np.testing.assert_allclose(pixels.probabilities, expected, atol=1e-3)
    if (scales, flip) == ((1.0,), False):
        np.testing.assert_allclose(predictor.logits(photo), look(photo), atol=1e-6, rtol=1e-6)


def test_windows_of_several_photos_fill_batches(labels, preprocess):
    """Fifteen and ten windows in batches of four: seven runs of one program."""
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (*size, 3), np.uint8) for size in [(11, 17), (9, 7), (16, 8)]]
    windows = Windows(SIDE, STRIDE)
    predictor = Predictor(Neighbour(), labels, preprocess, windows=windows, batch_size=4)
    calls, look = [], predictor._look

    class Counted:
        config, enlarged_by = look.config, staticmethod(look.enlarged_by)

        def __call__(self, images, *rest):
            calls.append(images.shape)
            return look(images, *rest)

    predictor._through._look = Counted()
    prepared = [predictor.prepare(photo) for photo in photos]
    assert {predictor.room(each) for each in prepared} == {4}
    waits = predictor.start(prepared, "confidence")
    for photo, wait in zip(photos, waits, strict=True):
        logits = plain_windows(photo, SIDE, STRIDE)
        pixels = wait()
        np.testing.assert_array_equal(pixels.label, logits.argmax(-1))
        power = np.exp(logits - logits.max(-1, keepdims=True))
        np.testing.assert_allclose(pixels.confidence, 1 / power.sum(-1), atol=1e-6)
    count = sum(len(windows.corners(photo.shape[:2])) for photo in photos)
    assert calls == [(4, *SIDE, 3)] * -(-count // 4)
    assert preprocess.traces == [(4, *SIDE, 3)]


def test_a_scale_is_of_what_the_network_sees_otherwise(labels, photo):
    predictor = Predictor(
        Neighbour(), labels, Preprocess(), multiple=1, views=Views((0.5, 2.0)), batch_size=1
    )

    def seen(**options):
        return [picture.shape[:2] for picture in predictor.prepare(photo, **options).pictures]

    assert seen() == [(6, 9), (22, 34)]
    assert seen(size=(10, 20)) == [(5, 10), (20, 40)]
    assert seen(max_side=8) == [(3, 4), (10, 16)]
    assert seen(size=lambda scale: (int(scale * 4), 7)) == [(2, 7), (8, 7)]
    assert scaled((1, 3), 0.1) == (1, 1)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ((), "--scales is empty: give numbers above 0"),
        ((1.0, -1.0), "--scales is 1 -1: give numbers above 0"),
        ((float("nan"),), "--scales is nan: give numbers above 0"),
        ((1.0, 0.5, 1.0), "--scales is 1 0.5 1: give every scale once"),
    ],
)
def test_senseless_scales_are_refused(scales, message):
    with pytest.raises(ConfigError, match=message):
        Views(scales)


def test_a_network_of_one_size_has_no_scales(labels):
    class Fixed(AnySize):
        fixed_size = (8, 8)

    model = Neighbour()
    model.config = Fixed()
    options = {"views": Views((0.5, 1.0))}
    with pytest.raises(ConfigError, match="--scales is given, and the network takes 8 x 8 pixels"):
        Predictor(model, labels, Preprocess(), **options)
