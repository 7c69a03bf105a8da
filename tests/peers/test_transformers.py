"""transformers loads our SegFormer folders and computes the same."""

import pytest
import torch
from transformers import SegformerForSemanticSegmentation

import convert


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
