"""transformers loads our SegFormer folders and computes the same."""

import numpy as np
import pytest
import torch
from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor

import convert
from flaxseg.preprocess import Preprocess


@pytest.mark.parametrize("size", range(6))
def test_loads_and_computes_the_same(size, network, images, same, tmp_path):
    model = network(f"segformer_b{size}_hf")
    convert.save(model, tmp_path / "model", format="huggingface")
    peer, info = SegformerForSemanticSegmentation.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not any(info.values()), info
    batch = images(96, 128)
    with torch.inference_mode():
        same(model, batch, peer.eval()(batch).logits)


@pytest.mark.parametrize("size", [0, 2])
def test_its_own_folder_comes_back_bit_for_bit(size, network, tmp_path):
    model = network(f"segformer_b{size}_hf")
    convert.save(model, tmp_path / "ours", format="huggingface")
    peer = SegformerForSemanticSegmentation.from_pretrained(tmp_path / "ours")
    peer.save_pretrained(tmp_path / "theirs")
    before = convert.read(tmp_path / "ours" / "model.safetensors")
    after = convert.read(tmp_path / "theirs" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all((after[key] == array).all() for key, array in before.items())
    found = convert.load(tmp_path / "theirs")
    assert found.report.model_name == f"segformer_b{size}_hf"


def test_normalises_images_as_we_do(network, tmp_path):
    ours = Preprocess((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    convert.save(
        network("segformer_b0_hf"), tmp_path / "ours", format="huggingface", preprocess=ours
    )
    peer = SegformerImageProcessor.from_pretrained(tmp_path / "ours")
    photo = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    found = peer(photo, do_resize=False, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(found[0].transpose(1, 2, 0), ours(photo), rtol=0, atol=1e-5)
    peer.save_pretrained(tmp_path / "theirs")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "ours" / name).rename(tmp_path / "theirs" / name)
    assert convert.load(tmp_path / "theirs").report.preprocess == ours
