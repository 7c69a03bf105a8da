"""timm and torchvision load our encoders with strict=True and compute the same maps."""

import numpy as np
import pytest
import timm
import torch
import torchvision

import convert
from flaxseg import models


def export(model: models.Model, origin: str, architecture: str) -> dict[str, torch.Tensor]:
    state = convert.load_format(origin, architecture).export_state(model)
    return {key: torch.from_numpy(np.array(array)) for key, array in state.items()}


def close(ours, theirs: torch.Tensor) -> None:
    bound = 1e-5 * theirs.abs().max().item()
    np.testing.assert_allclose(np.asarray(ours), theirs.numpy(), rtol=0, atol=bound)


def test_vit_of_setr(network, images):
    peer = timm.create_model("vit_large_patch16_224").eval()
    overrides = {"backbone.image_size": (224, 224), "backbone.class_token": "keep"}
    model = network("setr_naive_original", **overrides)
    peer.load_state_dict(export(model, "timm", "vit"), strict=True)
    batch = images(224, 224)
    indices = model.config.backbone.out_indices
    with torch.inference_mode():
        theirs = peer.get_intermediate_layers(batch, n=indices, reshape=True, norm=False)
    ours = models.eval_view(model).backbone(batch.numpy().transpose(0, 2, 3, 1))
    for found, expected in zip(ours, theirs, strict=True):
        close(found, expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize("depth", [50, 101])
def test_resnet_of_ccnet(depth, network, images):
    peer = getattr(torchvision.models, f"resnet{depth}")().eval()
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    model = network("ccnet", **{"backbone.blocks": blocks})
    peer.load_state_dict(export(model, "torchvision", "resnet"), strict=True)
    batch = images(64, 96)
    with torch.inference_mode():
        theirs = peer.relu(peer.bn1(peer.conv1(batch)))
    stem = models.eval_view(model).backbone.stem[0]
    close(stem(batch.numpy().transpose(0, 2, 3, 1)), theirs.permute(0, 2, 3, 1))
