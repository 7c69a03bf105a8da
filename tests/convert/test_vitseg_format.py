"""The Pet tutorial's ViT: keys, and a network of torch's own layers that takes its state dict.

Its recorded numbers are compared with all others in test_goldens.
"""

import numpy as np
import pytest
import torch
from torch import nn

import convert
from convert.formats.notebook_vitseg import FREE_FIELDS
from convert.parity import figures, goldens
from convert.parity.runs import FlaxRun, TorchRun, random_state
from convert.rules import Rule
from flaxseg import models, native
from flaxseg.errors import CheckpointError
from flaxseg.model_dir import COUNTER

NOTEBOOK = convert.load_format("notebook", "vitseg")
SMALL = models.get_config(
    "vitseg",
    num_classes=4,
    image_size=(24, 24),
    patch_size=8,
    width=16,
    depth=2,
    mlp_dim=64,
    dropout=0.0,
)


def test_keys_order_and_shapes_are_the_tutorials():
    golden = goldens.load_golden("notebook_vit_pets")
    table = NOTEBOOK.table(models.abstract_model(models.get_config("vitseg")))
    assert list(table.foreign_shapes.items()) == list(golden.keys.shapes.items())
    assert golden.config == models.get_config("vitseg") and golden.outputs == ["logits"]


def test_every_rule_is_used():
    leaves = native.leaves(models.abstract_model(SMALL))
    rules = [rule for rule in NOTEBOOK.rules if isinstance(rule, Rule)]
    templates = [template for rule in rules for template in rule.native]
    assert all(any(t.match(key) is not None for key in leaves) for t in templates)


def test_free_fields_exist():
    assert set(models.ViTSegConfig.__dataclass_fields__) - FREE_FIELDS == {"num_heads"}
    assert set(models.ViTSegConfig.__dataclass_fields__) > FREE_FIELDS


def test_another_number_of_heads_is_refused_though_keys_fit():
    other = models.abstract_model(models.override(SMALL, {"num_heads": 4}))
    with pytest.raises(CheckpointError, match="num_heads is 4, there 8"):
        NOTEBOOK.table(other)


@pytest.mark.parametrize("counters", [True, False])
def test_files_come_back_bit_for_bit(counters):
    foreign = NOTEBOOK.table(models.abstract_model(SMALL)).to_foreign(random_state(SMALL, 0))
    foreign[f"layers.0.{COUNTER}"] = np.array(1000)
    if not counters:
        del foreign[f"layers.0.{COUNTER}"]
    model = models.abstract_model(SMALL)
    imported = NOTEBOOK.import_state(foreign, model)
    back = NOTEBOOK.export_state(model, imported.spares)
    assert all(back[key].tobytes() == array.tobytes() for key, array in foreign.items())
    assert back.keys() - foreign.keys() == (set() if counters else {f"layers.0.{COUNTER}"})


class Patches(nn.Module):
    """Unfolded patches through a linear layer, with positions."""

    def __init__(self):
        super().__init__()
        self.position_embed = nn.Parameter(torch.empty(9, 16))
        self.pe = nn.ModuleDict({"embed_layer": nn.Linear(3 * 8 * 8, 16)})

    def forward(self, images):
        patches = nn.functional.unfold(images, 8, stride=8).mT
        return self.pe["embed_layer"](patches) + self.position_embed


class Block(nn.Module):
    """torch's own attention, and an MLP."""

    def __init__(self):
        super().__init__()
        self.ln1 = nn.LayerNorm(16)
        self.mha = nn.MultiheadAttention(16, 8, batch_first=True)
        self.ln2 = nn.LayerNorm(16)
        layers = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))
        self.mlp = nn.ModuleDict({"layers": layers})

    def forward(self, x):
        y = self.ln1(x)
        x = x + self.mha(y, y, y)[0]
        return x + self.mlp["layers"](self.ln2(x))


class Pixels(nn.Module):
    """Tokens folded back to an image."""

    def __init__(self):
        super().__init__()
        self.projection = nn.Linear(16, 4 * 8 * 8)

    def forward(self, x):
        return nn.functional.fold(self.projection(x).mT, (24, 24), 8, stride=8)


@pytest.mark.parametrize("run", [FlaxRun, TorchRun])
def test_torchs_own_layers_take_an_export_and_compute_the_same(run):
    state = random_state(SMALL, 0)
    model = models.abstract_model(SMALL)
    exported = NOTEBOOK.export_state(native.fill(model, state))
    blocks = nn.Sequential(Block(), Block())
    layers = nn.Sequential(nn.BatchNorm2d(3), Patches(), blocks, Pixels())
    oracle = nn.ModuleDict({"layers": layers}).double()
    oracle.load_state_dict({key: torch.tensor(a) for key, a in exported.items()}, strict=True)
    assert list(oracle.state_dict()) == list(exported)

    images = np.random.default_rng(0).standard_normal((2, 3, 24, 24))
    with torch.inference_mode():
        expected = oracle.eval()["layers"](torch.from_numpy(images)).numpy()
    outputs = run(SMALL, state, "float64").evaluate(images)
    assert figures.outputs_apart(outputs, [expected]) <= 1e-10
