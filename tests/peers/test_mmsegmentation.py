"""mmsegmentation's own networks load our files with strict=True and compute the same."""

from pathlib import Path

import mmseg.models
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import convert

CONFIGS = Path(mmseg.__file__).parent / ".mim" / "configs"

PUBLISHED = {
    "ccnet_r50": "ccnet/ccnet_r50-d8_4xb2-40k_cityscapes-512x1024.py",
    "ccnet_r101": "ccnet/ccnet_r101-d8_4xb2-40k_cityscapes-512x1024.py",
    "setr_naive": "setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py",
    "setr_pup": "setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512.py",
    "setr_mla": "setr/setr_vit-l-mla_8xb1-160k_ade20k-512x512.py",
    "setr_naive_cityscapes": "setr/setr_vit-l_naive_8xb1-80k_cityscapes-768x768.py",
    "setr_pup_cityscapes": "setr/setr_vit-l_pup_8xb1-80k_cityscapes-768x768.py",
    "setr_mla_cityscapes": "setr/setr_vit-l_mla_8xb1-80k_cityscapes-768x768.py",
    **{
        f"segformer_b{n}_mmseg": f"segformer/segformer_mit-b{n}_8xb2-160k_ade20k-512x512.py"
        for n in range(5)
    },
    "segformer_b5_mmseg": "segformer/segformer_mit-b5_8xb2-160k_ade20k-640x640.py",
    "bisenetv2_mmseg": "bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py",
}


def build(config: str) -> torch.nn.Module:
    """The published network without its pretrained encoder."""
    init_default_scope("mmseg")
    values = Config.fromfile(CONFIGS / config).model
    values.pretrained = None
    values.backbone.pop("init_cfg", None)
    return revert_sync_batchnorm(MODELS.build(values)).eval()


@pytest.mark.parametrize("name", PUBLISHED)
def test_loads_and_computes_the_same(name, network, images, same, tmp_path):
    peer = build(PUBLISHED[name])
    model = network(name, num_classes=peer.decode_head.num_classes)
    convert.save(model, tmp_path / "a.pth", format="mmseg")
    state = torch.load(tmp_path / "a.pth", weights_only=True)["state_dict"]
    assert list(state) == list(peer.state_dict())
    peer.load_state_dict(state, strict=True)
    batch = images(96, 128)
    with torch.inference_mode():
        same(model, batch, peer._forward(batch))
