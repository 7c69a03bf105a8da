"""Without PyTorch, a file of every layout is imported with the bits that torch.load gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import convert
import torch_ref
from convert.formats import FORMATS, TORCH_REF
from convert.formats.torch_ref import declared
from convert.parity.networks import small_config
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.model_dir import COUNTER

HEADS_OF_64 = {"width": 128, "num_heads": 2}
ENCODERS = {
    "torchvision resnet": ("ccnet", {}),
    "mmseg resnet": ("ccnet_r50", {}),
    "mmseg mit": ("segformer_b0_mmseg", {}),
    "nvlabs mit": ("segformer_b1", {}),
    "huggingface mit": ("segformer_b0_hf", {}),
    "timm vit": (
        "setr_pup_original",
        {f"backbone.{k}": v for k, v in HEADS_OF_64.items()} | {"backbone.head_dim": 0},
    ),
    "timm vitseg": ("vitseg", HEADS_OF_64),
}
"""Format of an encoder alone -> a network that starts from it."""

SCRIPT = """
import json, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torch_ref"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Block())
import numpy as np
from convert.formats import load_format
from convert.load import read_native, translate
from convert.parity.networks import small_config
from convert.recognise import Recognition
from convert.sources import open_checkpoint
from convert.start import start_from
from flaxseg import models

for file, (origin, network, overrides, encoder) in json.load(open("jobs.json")).items():
    checkpoint = open_checkpoint(file)
    arrays = checkpoint.arrays
    config = models.override(small_config(network), overrides)
    if encoder:
        found = start_from(file, config).arrays
    elif network.startswith(("ccnet", "segformer")):
        found = read_native(file, format=origin, model=network).arrays
    else:  # so narrow that their shapes do not tell the network
        layout = load_format(origin, models.architecture_of(config))
        found = translate(checkpoint, Recognition(layout, config, network, ())).arrays
    np.savez(file + ".npz", **{key: np.asarray(a) for key, a in arrays.items()})
    np.savez(file + ".native.npz", **{key: np.asarray(a) for key, a in found.items()})
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    """The folder with all files, imported in a process of its own."""
    folder, jobs = tmp_path_factory.mktemp("files"), {}
    for number, layout in enumerate((*FORMATS, *TORCH_REF)):
        known = (layout.variants[0], {}) if layout.variants else ENCODERS[str(layout)]
        config = models.override(small_config(known[0]), known[1])
        model = native.fill(models.abstract_model(config), random_state(config, 0))
        state = {k: torch.from_numpy(np.array(a)) for k, a in layout.export_state(model).items()}
        content = {layout.wrapper: state, "epoch": 3} if layout.wrapper else state
        old = number % 3 == 0
        torch.save(content, folder / f"{layout}.pth", _use_new_zipfile_serialization=not old)
        jobs[f"{layout}.pth"] = (layout.name, *known, not layout.variants)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = {**os.environ, "PYTHONPATH": str(Path(convert.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, cwd=folder, env=environment)
    return folder


@pytest.mark.parametrize("layout", (*FORMATS, *TORCH_REF), ids=str)
def test_import(imported, layout):
    found, in_native = (
        dict(np.load(imported / f"{layout}.pth{s}")) for s in (".npz", ".native.npz")
    )
    expected = torch.load(imported / f"{layout}.pth", weights_only=True)
    expected = expected[layout.wrapper] if layout.wrapper else expected
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        array = tensor.numpy()
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape)
        assert found[key].tobytes() == array.tobytes(), key
    name, overrides = (layout.variants[0], {}) if layout.variants else ENCODERS[str(layout)]
    leaves = native.leaves(models.abstract_model(models.override(small_config(name), overrides)))
    assert {k: a.shape for k, a in in_native.items()}.items() <= leaves.items()
    assert not layout.variants or in_native.keys() == leaves.keys()


@pytest.mark.parametrize("name", models.list_models())
def test_both_frameworks_declare_their_modules_alike(name):
    """So that the order of torch's keys is known without torch."""
    config = small_config(name)
    with torch.device("meta"):
        expected = list(torch_ref.create_model(config).state_dict())
    assert declared(config) == expected
    assert any(key.endswith(COUNTER) for key in expected) or "running_var" not in str(expected)
