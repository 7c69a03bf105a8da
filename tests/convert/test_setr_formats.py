"""SETR's published layouts: keys, and networks of plain torch calls that read the state dicts."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import convert
import torch_ref
from convert.changes import PatchPixels
from convert.formats.setr import FREE_FIELDS
from convert.parity import figures, goldens
from convert.parity.networks import COMPARISONS, small_config
from convert.parity.runs import FlaxRun, TorchRun, random_state
from convert.rules import Rule, build_table, rename
from flaxseg import models, native
from flaxseg.errors import CheckpointError

NAMES = [name for name in COMPARISONS if name.startswith("setr")]
State = dict[str, torch.Tensor]


def origin(name: str) -> str:
    if name == "setr":
        return "tutorial"
    return "original" if name.endswith("original") else "mmseg"


def table(config: models.SETRConfig, format_name: str, architecture: str = "setr"):
    format_ = convert.load_format(format_name, architecture)
    return format_.table(models.abstract_model(config))


@pytest.mark.parametrize(
    ("golden", "name", "size"),
    [
        ("mmseg_setr_naive", "setr_naive", 512),
        ("mmseg_setr_pup", "setr_pup", 512),
        ("mmseg_setr_pup_cityscapes", "setr_pup_cityscapes", 768),
        ("fudan_setr_naive", "setr_naive_original", 192),
        ("fudan_setr_naive_512", "setr_naive_original", 512),
        ("fudan_setr_pup", "setr_pup_original", 192),
        ("fudan_setr_pup_512", "setr_pup_original", 512),
    ],
)
def test_keys_order_and_shapes_are_the_peers(golden, name, size):
    config = models.get_config(name, **{"backbone.image_size": (size, size)})
    expected = goldens.load_keys(golden).shapes
    assert list(table(config, origin(name)).foreign_shapes.items()) == list(expected.items())


def vit(width: int, depth: int, heads: int, size: int, **overrides) -> models.SETRConfig:
    """A SETR around one of timm's encoders."""
    encoder = {
        "width": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_dim": 4 * width,
        "image_size": (size, size),
        "out_indices": (0, 0, 0, depth - 1),
        **overrides,
    }
    fields = {f"backbone.{name}": value for name, value in encoder.items()}
    return models.get_config("setr_naive_original", num_classes=3, channels=4, **fields)


@pytest.mark.parametrize(
    ("golden", "config"),
    [
        ("timm_vit_base_patch16_224", vit(768, 12, 12, 224)),
        ("timm_vit_base_patch16_384", vit(768, 12, 12, 384)),
        ("timm_vit_large_patch16_224", vit(1024, 24, 16, 224)),
    ],
)
@pytest.mark.parametrize("patch_bias", [True, False])
def test_keys_order_and_shapes_are_timms(golden, config, patch_bias):
    config = models.override(config, {"backbone.patch_bias": patch_bias})
    expected = goldens.load_keys(golden).shapes
    found = table(config, "timm", "vit").foreign_shapes
    assert found == expected
    if patch_bias:
        assert list(found) == list(expected)


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_returns_every_bit(name):
    config = small_config(name)
    format_ = convert.load_format(origin(name), "setr")
    before = random_state(config, 0)
    foreign = format_.export_state(native.fill(models.abstract_model(config), before))
    for model in (models.abstract_model(config), torch_ref.create_model(config)):
        imported = format_.import_state(foreign, model)
        back = format_.export_state(model, imported.spares)
        assert list(back) == list(foreign)
        assert all(back[key].tobytes() == array.tobytes() for key, array in foreign.items())


@pytest.mark.parametrize("format_name", ["tutorial", "mmseg", "original"])
def test_every_rule_is_used(format_name):
    format_ = convert.load_format(format_name, "setr")
    unused = {rule for rule in format_.rules if isinstance(rule, Rule)}
    for name in format_.variants:
        leaves = native.leaves(models.abstract_model(small_config(name)))
        unused -= {
            rule
            for rule in unused
            if rule.condition.holds(leaves)
            and any(rule.native[0].match(key) is not None for key in leaves)
        }
    assert unused == set()


def test_free_fields_exist():
    encoder = {f"backbone.{name}" for name in models.ViTConfig.__dataclass_fields__}
    assert set(models.SETRConfig.__dataclass_fields__) | encoder > FREE_FIELDS


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("setr", {"backbone.num_heads": 8}, "backbone.num_heads is 8, there 16"),
        ("setr", {"align_corners": False}, "align_corners is False, there True"),
        ("setr_mla", {"deepest_first": False}, "deepest_first is False, there True"),
        ("setr_pup", {"backbone.norm_eps": 1e-5}, "backbone.norm_eps is 1e-05, there 1e-06"),
    ],
)
def test_another_function_is_refused_though_keys_fit(name, changes, message):
    with pytest.raises(CheckpointError, match=message):
        table(models.override(small_config(name), changes), origin(name))


def test_a_patch_is_flattened_row_by_row_with_its_channels_side_by_side():
    kernel = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    patches = build_table([rename("k", "k", PatchPixels())], {"k": (2, 3, 4, 4)})
    linear = patches.to_foreign({"k": kernel})["k"]
    for row, column, channel in np.ndindex(4, 4, 3):
        pixel = (row * 4 + column) * 3 + channel
        np.testing.assert_array_equal(linear[:, pixel], kernel[:, channel, row, column])


def test_unused_classifiers_of_the_authors_are_left_out_and_written_back():
    config = small_config("setr_pup_original")
    format_ = convert.load_format("original", "setr")
    foreign = format_.export_state(torch_ref.create_model(config))
    foreign["auxiliary_head.3.conv_seg.weight"] += 1
    model = models.abstract_model(config)
    imported = format_.import_state(foreign, model)
    assert len(imported.left_out) == 10 + 8
    assert "never called" in imported.left_out["decode_head.conv_seg.bias"]
    back = format_.export_state(model, imported.spares)["auxiliary_head.3.conv_seg.weight"]
    assert back.shape == (5, 512, 1, 1) and np.all(back == 1)
    bare = {k: a for k, a in foreign.items() if k not in imported.left_out}
    assert format_.import_state(bare, model).left_out == {}


@pytest.mark.parametrize("patch_bias", [True, False])
def test_the_encoder_takes_timms_files(patch_bias):
    size = {"patch_size": 8, "image_size": (16, 24)}
    config = vit(32, 2, 16, 16, mlp_dim=24, patch_bias=True, **size)
    timm = convert.load_format("timm", "vit")
    source = torch_ref.create_model(config)
    foreign = timm.export_state(source)
    target = torch_ref.create_model(models.override(config, {"backbone.patch_bias": patch_bias}))
    head = target.head.classifier.weight.detach().clone()
    left_out = timm.import_state(foreign, target).left_out
    assert left_out["head.weight"] == "classifies ImageNet"
    assert ("patch_embed.proj.bias" in left_out) == (not patch_bias)
    torch.testing.assert_close(target.head.classifier.weight, head, rtol=0, atol=0)
    for key, value in target.backbone.state_dict().items():
        torch.testing.assert_close(value, source.backbone.state_dict()[key], rtol=0, atol=0)


def test_timms_files_do_not_fit_an_encoder_without_qkv_bias():
    config = vit(32, 2, 16, 16, mlp_dim=24, patch_size=8)
    foreign = convert.load_format("timm", "vit").export_state(torch_ref.create_model(config))
    without = torch_ref.create_model(models.override(config, {"backbone.qkv_bias": False}))
    with pytest.raises(CheckpointError, match="2 unexpected: blocks.0.attn.qkv.bias"):
        convert.load_format("timm", "vit").import_state(foreign, without)


def block(x: torch.Tensor, names: tuple[str, ...], s: State, eps: float) -> torch.Tensor:
    """A ViT's block by the prefixes of its layers in a state dict, 16 heads."""
    norm1, qkv_weight, qkv_bias, proj, norm2, fc1, fc2 = names

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"], eps)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, s[f"{name}.weight"], s[f"{name}.bias"])

    qkv = F.linear(norm(x, norm1), s[qkv_weight], s.get(qkv_bias))
    q, k, v = (part.unflatten(-1, (16, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
    attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    x = x + linear(attended, proj)
    return x + linear(F.gelu(linear(norm(x, norm2), fc1)), fc2)


def conv_bn_relu(x: torch.Tensor, conv: str, bn: str, s: State) -> torch.Tensor:
    weight = s[f"{conv}.weight"]
    x = F.conv2d(x, weight, s.get(f"{conv}.bias"), padding=weight.shape[-1] // 2)
    mean, var = s[f"{bn}.running_mean"], s[f"{bn}.running_var"]
    return F.relu(F.batch_norm(x, mean, var, s[f"{bn}.weight"], s[f"{bn}.bias"]))


def up(x: torch.Tensor, scale: int, align_corners: bool) -> torch.Tensor:
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=align_corners)


def tutorial(s: State, images: torch.Tensor) -> list[torch.Tensor]:
    patches = images.unfold(2, 8, 8).unfold(3, 8, 8)  # (B, C, h, w, row, column)
    h, w = patches.shape[2:4]
    x = patches.permute(0, 2, 3, 4, 5, 1).reshape(len(images), h * w, -1)
    x = F.linear(x, s["VIT.to_patch_embedding.1.weight"], s["VIT.to_patch_embedding.1.bias"])
    x = torch.cat([s["VIT.cls_token"].expand(len(x), -1, -1), x], 1) + s["VIT.pos_embedding"]
    maps = []
    for i in range(4):
        layers = (
            "0.norm 0.fn.to_qkv.weight 0.fn.to_qkv.bias 0.fn.to_out.0 1.norm 1.fn.net.0 1.fn.net.3"
        )
        names = tuple(f"VIT.transformer.layers.{i}.{name}" for name in layers.split())
        x = block(x, names, s, 1e-5)
        maps.append(x[:, 1:].mT.unflatten(2, (h, w)))
    outputs = []
    for name, x in zip(("Head9", "Head14", "Head19", "Head23"), maps, strict=True):
        for stage in (f"Head.{name}.UP_stage_{i}" for i in range(1, 5)):
            x = up(conv_bn_relu(x, f"{stage}.0", f"{stage}.1", s), 2, True)
        weight, bias = s[f"Head.{name}.cls_seg.weight"], s[f"Head.{name}.cls_seg.bias"]
        outputs.append(F.conv2d(x, weight, bias, padding=1))
    return [outputs[-1], *outputs[:-1]]


def tokens_without_class(s: State, images: torch.Tensor, patch: str) -> torch.Tensor:
    x = F.conv2d(images, s[f"{patch}.weight"], s.get(f"{patch}.bias"), stride=8)
    x = torch.cat([s["backbone.cls_token"].expand(len(x), -1, -1), x.flatten(2).mT], 1)
    return (x + s["backbone.pos_embed"])[:, 1:]


def normed_map(x: torch.Tensor, name: str, s: State) -> torch.Tensor:
    x = F.layer_norm(x, x.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"], 1e-6)
    return x.mT.unflatten(2, (4, 6))


def to_image(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, (32, 48), mode="bilinear", align_corners=False)


def mmseg_mla(s: State, images: torch.Tensor) -> list[torch.Tensor]:
    x = tokens_without_class(s, images, "backbone.patch_embed.projection")
    levels = []
    for i in range(4):
        layers = (
            "ln1 attn.attn.in_proj_weight attn.attn.in_proj_bias attn.attn.out_proj "
            "ln2 ffn.layers.0.0 ffn.layers.1"
        )
        x = block(x, tuple(f"backbone.layers.{i}.{n}" for n in layers.split()), s, 1e-6)
        y, proj = normed_map(x, f"neck.norm.{i}", s), f"neck.mla.channel_proj.{i}"
        levels.append(conv_bn_relu(y, f"{proj}.conv", f"{proj}.bn", s))
    sums = [levels[3], levels[3] + levels[2]]
    sums += [sums[1] + levels[1], sums[1] + levels[1] + levels[0]]
    parts, aux = [], []
    for i, y in enumerate(sums):
        extract, branch = f"neck.mla.feat_extract.{i}", f"decode_head.up_convs.{i}"
        y = conv_bn_relu(y, f"{extract}.conv", f"{extract}.bn", s)
        classifier = f"auxiliary_head.{i}.conv_seg"
        aux.append(F.conv2d(y, s[f"{classifier}.weight"], s[f"{classifier}.bias"]))
        for j in (0, 1):
            y = conv_bn_relu(y, f"{branch}.{j}.conv", f"{branch}.{j}.bn", s)
        parts.append(up(y, 4, False))
    weight, bias = s["decode_head.conv_seg.weight"], s["decode_head.conv_seg.bias"]
    logits = F.conv2d(torch.cat(parts, 1), weight, bias)
    return [to_image(y) for y in (logits, *aux)]


def original_mla(s: State, images: torch.Tensor) -> list[torch.Tensor]:
    x = tokens_without_class(s, images, "backbone.patch_embed.proj")
    levels = []
    for i in range(4):
        layers = "norm1 attn.qkv.weight attn.qkv.bias attn.proj norm2 mlp.fc1 mlp.fc2"
        x = block(x, tuple(f"backbone.blocks.{i}.{n}" for n in layers.split()), s, 1e-6)
        y, proj = normed_map(x, f"backbone.norm_{i}", s), f"backbone.mla.mla_p{i + 2}_1x1"
        levels.append(conv_bn_relu(y, f"{proj}.0", f"{proj}.1", s))
    p5 = levels[3]
    p4 = p5 + levels[2]
    p3 = p4 + levels[1]
    p2 = p3 + levels[0]
    parts, aux = [], []
    for i, y in enumerate((p2, p3, p4, p5)):
        extract, branch = f"backbone.mla.mla_p{i + 2}", f"decode_head.mlahead.head{i + 2}"
        y = conv_bn_relu(y, f"{extract}.0", f"{extract}.1", s)
        aux.append(F.conv2d(y, s[f"auxiliary_head.{i}.aux.weight"]))
        for j in (0, 3):
            y = conv_bn_relu(y, f"{branch}.{j}", f"{branch}.{j + 1}", s)
        parts.append(up(y, 4, True))
    weight, bias = s["decode_head.cls.weight"], s["decode_head.cls.bias"]
    logits = F.conv2d(torch.cat(parts, 1), weight, bias, padding=1)
    return [to_image(y) for y in (logits, *aux)]


@pytest.mark.parametrize("run", [FlaxRun, TorchRun])
@pytest.mark.parametrize(
    ("name", "peer"),
    [("setr", tutorial), ("setr_mla", mmseg_mla), ("setr_mla_original", original_mla)],
)
def test_the_peers_network_computes_the_same_from_its_own_keys(name, peer: Callable, run):
    """The networks for which no published numbers are at hand."""
    config = small_config(name)
    state = random_state(config, 0)
    foreign = table(config, origin(name)).to_foreign(state)
    tensors = {key: torch.from_numpy(np.array(a)).double() for key, a in foreign.items()}
    images = np.random.default_rng(1).standard_normal((2, 3, 32, 48))
    expected = [x.numpy() for x in peer(tensors, torch.from_numpy(images))]
    # The tutorial's network has no interpolation of its own behind the heads.
    outputs = run(config, state, "float64").evaluate(images, resize=name != "setr")
    assert figures.outputs_apart(outputs, expected) <= 1e-10
