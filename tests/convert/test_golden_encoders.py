"""Encoders alone, read without hints for a training, compute what their publishers' code does."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import convert
from convert.parity import golden_rule, goldens
from flaxseg import models, native

PLAIN = {
    "num_classes": 2,
    "upsample": "image",
    "backbone.strides": (1, 2, 2, 2),
    "backbone.dilations": (1, 1, 1, 1),
    "backbone.first_dilations": (1, 1, 1, 1),
}
VIT_BASE = {
    "num_classes": 2,
    "backbone.image_size": (224, 224),
    "backbone.width": 768,
    "backbone.depth": 12,
    "backbone.num_heads": 12,
    "backbone.mlp_dim": 3072,
    "backbone.out_indices": (0, 6, 11),
}
NETWORKS = {
    "timm_vit_base_patch16_224": models.get_config("setr_naive_original", **VIT_BASE),
    "hf_mit_b0": models.get_config("segformer_b0_hf", num_classes=2),
    "torchvision_resnet50": models.get_config("ccnet", **PLAIN),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_features(name, tmp_path: Path):
    with np.load(goldens.GOLDENS / f"{name}.features.npz") as archive:
        record = dict(archive)
    weights = golden_rule.weights(goldens.load_keys(name))
    convert.write(tmp_path / "encoder.pth", weights)
    config = NETWORKS[name]
    start = convert.start_from(str(tmp_path / "encoder.pth"), config)
    model = models.abstract_model(config)
    rest = {k: np.zeros(s, np.float32) for k, s in native.leaves(model).items()}
    encoder = models.eval_view(native.fill(model, {**rest, **start.arrays})).backbone
    image = golden_rule.image(int(record["image_seed"]), tuple(record["image_shape"]))
    features = encoder(jnp.asarray(image.transpose(0, 2, 3, 1)))
    names = list(record["names"])
    for feature, found in zip(names, features[-len(names) :], strict=True):
        channels = found[..., record[f"{feature}_ch"]]
        if f"{feature}_cols" in record:
            rows, cols = record[f"{feature}_rows"], record[f"{feature}_cols"]
            chosen = channels[:, rows][:, :, cols].transpose(0, 3, 1, 2)
        else:
            # Tokens, of which the first is the class token's, which no head reads.
            tokens = channels.reshape(len(found), -1, channels.shape[-1])
            kept = record[f"{feature}_rows"] > 0
            chosen = tokens[:, record[f"{feature}_rows"][kept] - 1]
            record[feature] = record[feature][:, kept]
        bound = 10 * float(record["noise"])
        np.testing.assert_allclose(chosen, record[feature], rtol=0, atol=bound, err_msg=feature)
