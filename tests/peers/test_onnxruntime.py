"""ONNX files compute what Flax does, at any batch and size that the network takes."""

import cv2
import numpy as np
import onnxruntime
import pytest

from convert.onnx_file import write_onnx
from convert.parity.networks import COMPARISONS, small_config
from convert.parity.runs import random_state
from convert.verify import BOUND, run_flax
from flaxseg import models
from flaxseg.model_dir import make_header


def sizes(config: models.Config) -> list[tuple[int, int]]:
    """Odd ones where the network takes them.

    48x32 has as many patches as the tables of positions for 32x48, in another shape.
    """
    if config.fixed_size:
        return [config.fixed_size]
    if config.square:
        return [(64, 64), (96, 96)]
    return [(64, 96), (96, 64)] if config.size_divisor > 1 else [(33, 47), (48, 32), (70, 50)]


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_network_at_every_batch_and_size(name, tmp_path):
    config = small_config(name)
    state = random_state(config, 0)
    write_onnx(tmp_path / "a.onnx", make_header(config), state)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    for count, size in enumerate(sizes(config), start=1):
        images = np.random.default_rng(count).standard_normal((count, 3, *size), np.float32)
        (found,) = session.run(None, {"images": images})
        expected = run_flax(config, state, images, resize=True)
        np.testing.assert_allclose(found, expected, rtol=0, atol=BOUND * np.abs(expected).max())


@pytest.mark.parametrize("name", ["segformer_b0", "bisenetv2"])
def test_opencv_reads_it(name, tmp_path):
    config = small_config(name)
    state = random_state(config, 0)
    write_onnx(tmp_path / "a.onnx", make_header(config), state)
    network = cv2.dnn.readNetFromONNX(str(tmp_path / "a.onnx"))
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 96), np.float32)
    network.setInput(images)
    expected = run_flax(config, state, images, resize=True)
    np.testing.assert_allclose(
        network.forward(), expected, rtol=0, atol=BOUND * np.abs(expected).max()
    )
