"""Networks that take some image sizes only: evaluation and prediction fit every picture to them."""

import numpy as np
import pytest
from flax import nnx

from flaxseg import models
from flaxseg.inference.logits import fitting_size, image_logits
from flaxseg.inference.predict import Predictor
from flaxseg.labels import LabelSet
from flaxseg.ops import resize_bilinear
from flaxseg.preprocess import Preprocess

LABELS = LabelSet.generic(3)
VITSEG = {"image_size": (16, 24), "patch_size": 8, "width": 8, "depth": 1, "mlp_dim": 8}


@pytest.fixture(scope="module")
def fixed() -> models.Model:
    return models.create_model("vitseg", 3, rngs=nnx.Rngs(0), **VITSEG)


@pytest.mark.parametrize(
    ("name", "size", "fitting"),
    [
        ("vitseg", (300, 200), (128, 128)),
        ("bisenetv2", (64, 96), (64, 96)),
        ("bisenetv2", (65, 90), (96, 96)),
        ("segformer_b0", (65, 90), (65, 90)),
    ],
)
def test_fitting_size(name, size, fitting):
    assert fitting_size(models.get_config(name), size) == fitting


def test_pictures_are_stretched_to_the_only_size(fixed):
    images = np.random.default_rng(0).integers(0, 256, (1, 40, 30, 3), np.uint8)
    preprocess = Preprocess()
    inner = resize_bilinear(preprocess(images), (16, 24))
    expected = resize_bilinear(models.eval_view(fixed)(inner).logits, (40, 30))
    np.testing.assert_allclose(
        image_logits(fixed, LABELS, preprocess, images), expected, rtol=1e-5, atol=1e-6
    )


def test_photos_get_labels_at_their_own_size(fixed):
    photo = np.random.default_rng(0).integers(0, 256, (50, 37, 3), np.uint8)
    predictor = Predictor(fixed, LABELS, Preprocess())
    label = predictor.labels(photo)
    assert label.shape == (50, 37) and label.max() < 3
    # Another size than the only one is not possible, whatever is asked for.
    np.testing.assert_array_equal(predictor.labels(photo, size=(99, 99)), label)
