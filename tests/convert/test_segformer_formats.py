"""The layouts of SegFormer and of its encoder alone."""

import dataclasses

import numpy as np
import pytest

import convert
import torch_ref
from convert import bridge
from convert.formats.segformer import FREE_FIELDS
from convert.parity import golden_rule, goldens
from convert.parity.runs import FlaxRun, TorchRun, random_state
from convert.rules import Rule
from flaxseg import models, native
from flaxseg.errors import CheckpointError

FORMATS = {str(f): f for f in convert.FORMATS if f.architecture in ("segformer", "mit")}
NETWORKS = {
    "huggingface5 segformer": "segformer_b0_hf",
    "huggingface mit": "segformer_b0_hf",
    "huggingface segformer": "segformer_b0_hf",
    "mmseg mit": "segformer_b0_mmseg",
    "mmseg segformer": "segformer_b0_mmseg",
    "nvlabs mit": "segformer_b0",
    "nvlabs segformer": "segformer_b0",
    "tutorial segformer": "segformer",
}
SMALL = {
    "num_classes": 3,
    "channels": 6,
    "backbone.widths": (2, 4, 5, 8),
    "backbone.depths": (1, 1, 1, 1),
    "backbone.mlp_ratio": 2,
}


def small(name: str, **overrides):
    return torch_ref.create_model(name, **{**SMALL, **overrides})


@pytest.mark.parametrize(
    ("manifest", "format_", "network", "num_classes"),
    [
        ("hf_segformer_b3", "huggingface segformer", "segformer_b3_hf", 150),
        ("mmseg_segformer_b3", "mmseg segformer", "segformer_b3_mmseg", 150),
        ("nvlabs_segformer_b1", "nvlabs segformer", "segformer_b1", 150),
        ("nvlabs_segformer_b4", "nvlabs segformer", "segformer_b4", 19),
        ("hf_mit_b0", "huggingface mit", "segformer_b0_hf", 150),
    ],
)
def test_keys_order_and_shapes_are_the_peers(manifest, format_, network, num_classes):
    model = models.abstract_model(models.get_config(network, num_classes=num_classes))
    table = FORMATS[format_].table(model)
    assert list(table.foreign_shapes.items()) == list(goldens.load_keys(manifest).shapes.items())


def test_every_format_has_a_network():
    assert NETWORKS.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_rule_is_used(name):
    leaves = native.leaves(models.abstract_model(models.get_config(NETWORKS[name])))
    for rule in FORMATS[name].rules:
        if isinstance(rule, Rule):
            assert any(t.match(key) is not None for t in rule.native for key in leaves), str(rule)


def test_free_fields_exist():
    fields = {f"backbone.{f.name}" for f in dataclasses.fields(models.MiTConfig)}
    fields |= {f.name for f in dataclasses.fields(models.SegFormerConfig)}
    assert fields >= FREE_FIELDS


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_fills_the_network_and_comes_back(name):
    format_, network = FORMATS[name], NETWORKS[name]
    source, target = small(network), small(network)
    before, untouched = bridge.state_dict(source), bridge.state_dict(target)
    foreign = format_.export_state(source)
    spares = format_.import_state(foreign, target).spares
    for key, array in bridge.state_dict(target).items():
        expected = before[key] if format_.covers(key) else untouched[key]
        assert array.tobytes() == expected.tobytes(), key
    back = format_.export_state(target, spares)
    assert list(back) == list(foreign)
    assert all(back[key].tobytes() == array.tobytes() for key, array in foreign.items())


@pytest.mark.parametrize(
    ("name", "key", "reason"),
    [
        ("nvlabs segformer", "decode_head.conv_seg.weight", "never applies"),
        ("nvlabs mit", "head.weight", "classifies ImageNet"),
        ("huggingface mit", "classifier.bias", "classifies ImageNet"),
    ],
)
def test_what_the_network_does_not_use_is_named(name, key, reason):
    format_, model = FORMATS[name], small(NETWORKS[name])
    foreign = format_.export_state(model)
    assert reason in format_.import_state(foreign, model).left_out[key]
    kept = {k: a for k, a in foreign.items() if k != key}
    assert key not in format_.import_state(kept, model).left_out


@pytest.mark.parametrize(
    ("format_", "network", "difference"),
    [
        ("tutorial segformer", "segformer_b0", "backbone.norm_eps is 1e-06, there 1e-05"),
        ("nvlabs segformer", "segformer", "backbone.norm_eps is 1e-05, there 1e-06"),
        ("nvlabs segformer", "segformer_b0_mmseg", "head is 'conv', there 'mlp'"),
        ("huggingface segformer", "segformer_b0", "backbone.norm_eps is 1e-06, there 1e-05"),
        ("mmseg segformer", "segformer_b0", "head is 'mlp', there 'conv'"),
    ],
)
def test_another_function_is_refused(format_, network, difference):
    with pytest.raises(CheckpointError, match="compute something else") as caught:
        FORMATS[format_].export_state(small(network))
    assert difference in str(caught.value)


def test_heads_that_no_shape_reveals_are_not_free():
    model = small("segformer", **{"backbone.heads": (1, 1, 1, 1)})
    with pytest.raises(CheckpointError, match="heads"):
        FORMATS["tutorial segformer"].export_state(model)


def test_query_key_and_value_are_stored_as_each_peer_does():
    arrays = random_state(models.get_config("segformer", **SMALL), 0)
    block = "backbone.stages.1.blocks.0.attn"
    query, kv = arrays[f"{block}.q.weight"], arrays[f"{block}.kv.weight"]
    foreign = {
        name: FORMATS[name].export_state(native_model(NETWORKS[name]))
        for name in ("mmseg mit", "huggingface mit", "huggingface5 segformer", "nvlabs mit")
    }
    joint = foreign["mmseg mit"]["layers.1.1.0.attn.attn.in_proj_weight"]
    np.testing.assert_array_equal(joint, np.concatenate([query, kv]))
    theirs = "segformer.encoder.block.1.0.attention.self"
    hf, hf5 = foreign["huggingface mit"], foreign["huggingface5 segformer"]
    np.testing.assert_array_equal(hf[f"{theirs}.key.weight"], kv[:4])
    np.testing.assert_array_equal(hf[f"{theirs}.value.weight"], kv[4:])
    np.testing.assert_array_equal(
        hf5["segformer.stages.1.blocks.0.attention.k_proj.weight"], kv[:4]
    )
    np.testing.assert_array_equal(foreign["nvlabs mit"]["block2.0.attn.kv.weight"], kv)
    convolution = foreign["mmseg mit"]["layers.1.1.0.ffn.layers.0.weight"]
    assert convolution.shape == (8, 4, 1, 1)


def native_model(name: str) -> models.SegFormer:
    """With the same weights in the encoder, whatever the network."""
    config = models.get_config(name, **SMALL)
    encoder = random_state(models.get_config("segformer", **SMALL), 0)
    arrays = {key: encoder.get(key, array) for key, array in random_state(config, 1).items()}
    return native.fill(models.abstract_model(config), arrays)


def test_a_hugging_face_file_becomes_a_tutorial_file():
    source = small("segformer_b0_hf")
    theirs = FORMATS["huggingface segformer"].export_state(source)
    tutorial = FORMATS["tutorial segformer"].export_state(source)
    np.testing.assert_array_equal(
        tutorial["backbone.block3.0.attn.kv.bias"],
        np.concatenate(
            [
                theirs[f"segformer.encoder.block.2.0.attention.self.{n}.bias"]
                for n in ("key", "value")
            ]
        ),
    )
    np.testing.assert_array_equal(
        tutorial["decode_head.linear_c4.proj.weight"], theirs["decode_head.linear_c.3.proj.weight"]
    )


@pytest.mark.parametrize("run", [FlaxRun, TorchRun])
def test_the_encoder_alone_classifies_as_published(run):
    with np.load(goldens.GOLDENS / "hf_mit_b0.npz") as archive:
        record = dict(archive)
    weights = golden_rule.weights(goldens.load_keys("hf_mit_b0"))
    config = models.get_config("segformer_b0_hf", num_classes=1, channels=1)
    table = FORMATS["huggingface mit"].table(models.abstract_model(config))
    state = {**random_state(config, 0), **table.to_native(weights)}
    image = golden_rule.image(int(record["image_seed"]), tuple(record["image_shape"]))
    last = run(config, state, "float32").features(image)[-1]
    logits = last.mean((2, 3)) @ weights["classifier.weight"].T + weights["classifier.bias"]
    assert np.abs(logits - record["logits"]).max() <= goldens.TIMES_NOISE * record["logits_noise"]
