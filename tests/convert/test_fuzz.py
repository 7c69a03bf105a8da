"""Whatever a file holds, it is loaded whole or refused with one error, and runs no code.

    FUZZ=5000 pytest tests/convert/test_fuzz.py

tries so many damaged files; the suite tries fewer.
"""

import functools
import io
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import convert
from convert.load import read_native
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.errors import CheckpointError

EXAMPLES = int(os.environ.get("FUZZ", "60"))

TINY = {
    "vitseg": ("notebook", {"width": 8, "depth": 1, "mlp_dim": 8, "num_classes": 2}),
    "segformer_b0": (
        "nvlabs",
        {"backbone.widths": (4, 8, 10, 16), "backbone.depths": (1, 1, 1, 1), "channels": 8},
    ),
}
NATIVE_SHAPES = {
    name: native.leaves(models.abstract_model(models.get_config(name, **overrides)))
    for name, (_, overrides) in TINY.items()
}
DTYPES = (np.float16, np.float64, np.int64, np.uint8, np.bool_, np.complex64)

State = dict[str, Any]


def _published(name: str) -> State:
    origin, overrides = TINY[name]
    config = models.get_config(name, **overrides)
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    return convert.load_format(origin, models.architecture_of(config)).export_state(model)


STATES = {name: _published(name) for name in TINY}


def torch_file(state: State, **options: Any) -> bytes:
    tensors = {
        key: torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
        for key, value in state.items()
    }
    buffer = io.BytesIO()
    torch.save({"state_dict": tensors}, buffer, **options)
    return buffer.getvalue()


def old_torch_file(state: State) -> bytes:
    return torch_file(state, _use_new_zipfile_serialization=False)


def safetensors_file(state: State) -> bytes:
    return save({key: np.asarray(value, order="C") for key, value in state.items()})


def array_pickle(state: State) -> bytes:
    return pickle.dumps({"model": {key: np.asarray(value) for key, value in state.items()}})


WRITERS: dict[str, Callable[[State], bytes]] = {
    ".pth": torch_file,
    ".pt": old_torch_file,
    ".safetensors": safetensors_file,
    ".pkl": array_pickle,
}


@st.composite
def mutated_states(draw: st.DrawFn) -> State:
    """A published state dict with some tensors renamed, dropped, doubled, reshaped or recast."""
    state = dict(STATES[draw(st.sampled_from(sorted(STATES)))])
    for _ in range(draw(st.integers(1, 4))):
        key = draw(st.sampled_from(sorted(state)))
        array = state[key]
        match draw(st.sampled_from(["rename", "drop", "double", "shape", "dtype", "value"])):
            case "rename":
                state[draw(st.text(max_size=12)) or key + "x"] = state.pop(key)
            case "drop":
                del state[key]
            case "double":
                state[f"{key}.{draw(st.sampled_from(['weight', '0', 'copy']))}"] = array
            case "shape":
                shape = draw(st.lists(st.integers(0, 5), max_size=5))
                state[key] = np.zeros(shape, array.dtype)
            case "dtype":
                state[key] = np.real(array).astype(draw(st.sampled_from(DTYPES)))
            case "value":
                state[key] = np.full_like(array, draw(st.sampled_from([0, 1, 127])))
    return state


@functools.cache
def undamaged(name: str, suffix: str) -> bytes:
    """The same bytes each time: PyTorch's old format holds addresses, whose lengths vary."""
    return WRITERS[suffix](STATES[name])


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """A file with bytes flipped, cut out, put in or cut off."""
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        # Headers and directories of entries stand at both ends.
        near_end = draw(st.sampled_from([0, len(damaged) - 2000, None]))
        low, high = (0, len(damaged)) if near_end is None else (near_end, near_end + 2000)
        place = draw(st.integers(max(0, low), max(0, min(high, len(damaged)) - 1)))
        match draw(st.sampled_from(["flip", "cut", "insert", "end"])):
            case "flip" if damaged:
                damaged[place] ^= draw(st.integers(1, 255))
            case "cut":
                del damaged[place : place + draw(st.integers(1, 64))]
            case "insert":
                damaged[place:place] = draw(st.binary(min_size=1, max_size=16))
            case "end":
                del damaged[place:]
    return bytes(damaged)


FUZZED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 1000,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def loads_whole_or_is_refused(content: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{suffix}"
        path.write_bytes(content)
        try:
            arrays, report = read_native(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            return
    expected = native.leaves(models.abstract_model(report.config))
    assert {key: array.shape for key, array in arrays.items()} == expected
    assert all(array.dtype.kind == "f" for array in arrays.values())


@FUZZED
@given(state=mutated_states(), suffix=st.sampled_from(sorted(WRITERS)))
def test_other_keys_shapes_and_dtypes(state, suffix):
    loads_whole_or_is_refused(WRITERS[suffix](state), suffix)


@FUZZED
@given(
    data=st.data(), name=st.sampled_from(sorted(STATES)), suffix=st.sampled_from(sorted(WRITERS))
)
def test_damaged_bytes(data, name, suffix):
    loads_whole_or_is_refused(data.draw(damaged_bytes(undamaged(name, suffix))), suffix)


class Hostile:
    """Unpickles to a call."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(canary: Path) -> list[Hostile]:
    import builtins
    import importlib
    import shutil
    import subprocess

    command = f"touch {canary}"
    return [
        Hostile(os.system, command),
        Hostile(subprocess.Popen, ["touch", str(canary)]),
        Hostile(builtins.eval, f"open({str(canary)!r}, 'w')"),
        Hostile(builtins.exec, f"open({str(canary)!r}, 'w')"),
        Hostile(builtins.open, str(canary), "w"),
        Hostile(builtins.getattr, "", "join"),
        Hostile(importlib.import_module, "antigravity"),
        Hostile(shutil.copy, __file__, str(canary)),
        Hostile(Path.touch, canary),
        Hostile(np.save, str(canary), np.zeros(1)),
        Hostile(torch.save, {}, str(canary)),
        Hostile(torch.load, str(canary)),
        Hostile(pickle.loads, pickle.dumps(Hostile(os.system, command))),
    ]


@pytest.mark.parametrize("number", range(13))
@pytest.mark.parametrize("writer", ["pickle", "zip", "legacy"])
def test_no_pickle_runs_code(number, writer, tmp_path):
    canary = tmp_path / "canary"
    state = {**STATES["vitseg"], "extra": hostile(canary)[number]}
    path = tmp_path / "hostile.pth"
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": state["extra"]}))
        with pytest.raises(CheckpointError, match=r"hostile\.pth"):
            read_native(path)
    else:  # beside weights it is passed over
        path.write_bytes(torch_file(state) if writer == "zip" else old_torch_file(state))
        arrays, _ = read_native(path)
        assert {key: a.shape for key, a in arrays.items()} == NATIVE_SHAPES["vitseg"]
    assert not canary.exists()


def test_the_canary_would_be_seen(tmp_path):
    pickle.loads(pickle.dumps(Hostile(os.system, f"touch {tmp_path / 'canary'}")))
    assert (tmp_path / "canary").exists()


def test_zip_entries_outside_are_not_unpacked(tmp_path):
    path = tmp_path / "slip.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../canary", b"x")
    with pytest.raises(CheckpointError, match=r"slip\.pth"):
        read_native(path)
    assert not (tmp_path.parent / "canary").exists()
