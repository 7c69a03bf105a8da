import jax
import numpy as np
import pytest

from flaxseg import Preprocess
from flaxseg.errors import ConfigError

MEAN, STD = (0.5, 0.25, 0.0), (0.5, 1.0, 2.0)
PHOTO = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)


def test_normalises_bytes_to_float32():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    result = jax.jit(Preprocess(MEAN, STD))(images)
    assert result.dtype == np.float32
    expected = (images / 255 - MEAN) / STD
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("call", [lambda f: f, jax.jit])
def test_bgr_is_the_reversed_picture(call):
    found = call(Preprocess(MEAN, STD, "bgr"))(PHOTO)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, call(Preprocess(MEAN, STD))(PHOTO)[..., ::-1])
    reversed_picture = call(Preprocess(MEAN[::-1], STD[::-1]))(PHOTO[..., ::-1])
    np.testing.assert_array_equal(found, reversed_picture)


@pytest.mark.usefixtures("x64")
def test_bgr_of_wide_numbers_is_the_reversed_picture():
    wide = PHOTO.astype(np.float64)
    found = Preprocess(MEAN, STD, "bgr")(wide)
    np.testing.assert_array_equal(found, Preprocess(MEAN, STD)(PHOTO)[..., ::-1])


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_survives_json(channels):
    preprocess = Preprocess((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), channels)
    assert Preprocess.from_json(preprocess.to_json()) == preprocess


def test_reads_what_was_written_before_there_were_channels():
    assert Preprocess.from_json({"mean": list(MEAN), "std": list(STD)}) == Preprocess(MEAN, STD)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": "grb"}, "channels is 'grb', it must be rgb or bgr"),
        ({"mean": (123.675, 116.28, 103.53)}, "mean is 123.7 116.3 103.5, .* numbers from 0 to 1"),
        ({"mean": (0.5, 0.5)}, "mean is 0.5 0.5, it must be three"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean is 0.5 nan 0.5"),
        ({"std": (1.0, 0.0, 1.0)}, "std is 1 0 1, it must be three numbers above 0"),
        ({"std": (1.0, 1.0, float("inf"))}, "std is 1 1 inf"),
    ],
)
def test_values_that_do_not_fit_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        Preprocess(**values)


def test_rounded_numbers_are_close():
    exact = Preprocess((122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255), (1 / 255,) * 3)
    rounded = Preprocess((0.4811, 0.4575, 0.4079), (0.00392,) * 3)
    assert exact.is_close(rounded)
    assert not exact.is_close(Preprocess(exact.mean, exact.std, "bgr"))
    assert not exact.is_close(Preprocess(exact.mean, (0.004,) * 3))
    assert not exact.is_close(Preprocess())


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_the_inverse_gives_every_byte_back(channels):
    preprocess = Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), channels)
    pixels = np.stack([np.arange(256), np.arange(256)[::-1], np.arange(256) ^ 0x55], -1)
    found = preprocess.inverse(preprocess(pixels.astype(np.uint8)))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)
