import cv2
import numpy as np
import pytest
from scipy.special import softmax

from flaxseg.data.transforms.geometry import MODES
from flaxseg.inference import Predictor
from flaxseg.inference.pixels import label_and_confidence, planes_of, read_planes, split
from flaxseg.inference.windows import Windows
from flaxseg.models import eval_view
from flaxseg.ops import resize_bilinear
from flaxseg.preprocess import Preprocess


def checked(pixels, logits, detail):
    """Compares with a softmax in float64."""
    expected = softmax(np.asarray(logits, np.float64), axis=-1)
    chosen = np.take_along_axis(expected, pixels.label[..., None].astype(int), -1)[..., 0]
    np.testing.assert_allclose(chosen, expected.max(-1), atol=1e-5)
    if detail == "label":
        assert pixels.confidence is None
    else:
        np.testing.assert_allclose(pixels.confidence, expected.max(-1), atol=1e-5)
    if detail == "probabilities":
        assert pixels.probabilities.dtype == np.float16
        np.testing.assert_allclose(pixels.probabilities, expected, rtol=1e-3, atol=1e-5)
    else:
        assert pixels.probabilities is None


@pytest.mark.parametrize("detail", ["label", "confidence", "probabilities"])
def test_one_class_after_the_other_gives_the_softmax_of_all(detail):
    rng = np.random.default_rng(0)
    scale = rng.choice([0.01, 1, 100], (9, 7, 1))  # close calls, usual ones and overflows of exp
    logits = (scale * rng.normal(size=(9, 7, 5))).astype(np.float32)
    for temperature in (1.0, 2.5):
        expected = logits / temperature
        found = read_planes(lambda: planes_of(logits, (9, 7)), (9, 7), detail, temperature)
        checked(found, expected, detail)
        if detail == "confidence":
            checked(split(np.asarray(label_and_confidence(logits, temperature))), expected, detail)


@pytest.mark.parametrize("detail", ["label", "confidence", "probabilities"])
@pytest.mark.parametrize(
    ("made", "asked", "inner", "out"),
    [
        ({"multiple": 8}, {}, (11, 17), (11, 17)),
        ({"windows": Windows((6, 9), (5, 4))}, {}, (11, 17), (11, 17)),
        ({"windows": Windows((6, 9), (5, 4))}, {"out_size": (7, 30)}, (11, 17), (7, 30)),
        ({"multiple": 1}, {"size": (22, 17), "out_size": (22, 17)}, (22, 17), (22, 17)),
        ({"multiple": 1}, {"size": (6, 4)}, (6, 4), (11, 17)),
    ],
)
def test_whatever_the_way_the_numbers_are_those_of_the_logits(
    pixel_model, labels, photo, detail, made, asked, inner, out
):
    predictor = Predictor(pixel_model, labels, Preprocess(), temperature=0.4, **made)
    prepared = predictor.prepare(photo, interpolation="nearest", **asked)
    (wait,) = predictor.start([prepared], detail)
    pixels = wait()
    seen = cv2.resize(photo, inner[::-1], interpolation=MODES["nearest"])
    logits = eval_view(pixel_model)(Preprocess()(seen[None])).logits
    checked(pixels, resize_bilinear(logits, out, align_corners=False)[0] / 0.4, detail)
    assert pixels.label.shape == out and pixels.label.flags.writeable
