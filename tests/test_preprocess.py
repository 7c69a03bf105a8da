import jax
import numpy as np

from flaxseg import Preprocess


def test_normalises_bytes_to_float32():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    preprocess = Preprocess((0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
    result = jax.jit(preprocess)(images)
    assert result.dtype == np.float32
    expected = (images / 255 - [0.5, 0.25, 0.0]) / [0.5, 1.0, 2.0]
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_survives_json():
    preprocess = Preprocess((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert Preprocess.from_json(preprocess.to_json()) == preprocess
