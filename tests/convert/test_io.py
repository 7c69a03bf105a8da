"""Reading and writing the peers' files."""

import contextlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.torch import save_file

import convert
from flaxseg.errors import CheckpointError


@pytest.fixture
def state():
    rng = np.random.default_rng(0)
    transposed = rng.standard_normal((3, 2)).astype(np.float32).T
    return {"b.weight": transposed, "a.steps": np.array(3)}


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.bin", "x.ckpt", "x.safetensors"])
def test_round_trip(tmp_path, state, name):
    convert.write(tmp_path / "deep" / name, state)
    back = convert.read(tmp_path / "deep" / name)
    assert back.keys() == state.keys()
    for key, array in state.items():
        assert (back[key].dtype, back[key].shape) == (array.dtype, array.shape)
        assert back[key].tobytes() == array.tobytes()
    assert os.listdir(tmp_path / "deep") == [name]


def test_torch_files_keep_the_order(tmp_path, state):
    convert.write(tmp_path / "x.pth", state)
    assert list(convert.read(tmp_path / "x.pth")) == ["b.weight", "a.steps"]


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_wrappers(tmp_path, state, wrapper):
    convert.write(tmp_path / "x.pth", state, wrapper=wrapper)
    assert list(torch.load(tmp_path / "x.pth")) == [wrapper]
    assert list(convert.read(tmp_path / "x.pth")) == list(state)


def test_nested_wrapper_beside_other_entries(tmp_path):
    content = {"epoch": 3, "model": {"state_dict": {"module.a": torch.ones(2)}}}
    torch.save(content, tmp_path / "x.pth")
    assert list(convert.read(tmp_path / "x.pth")) == ["a"]


def test_wrappers_of_some_modules(tmp_path):
    keys = ("n_averaged", "module.a._orig_mod.w", "module.b.module")
    torch.save({key: torch.ones(1) for key in keys}, tmp_path / "x.pth")
    assert list(convert.read(tmp_path / "x.pth")) == ["n_averaged", "a.w", "b.module"]
    torch.save({"module.a": torch.ones(1), "a": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(
        CheckpointError, match=r"module\.a and a are both a once wrappers are taken"
    ):
        convert.read(tmp_path / "x.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_half_precision_becomes_float32_exactly(tmp_path, dtype, suffix):
    tensor = torch.linspace(-3, 3, 17).to(dtype)
    path = tmp_path / f"x.{suffix}"
    save_file({"a": tensor}, path) if suffix == "safetensors" else torch.save({"a": tensor}, path)
    array = convert.read(path)["a"]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, tensor.float().numpy())


def test_code_in_a_pickle_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth .*running code .* save model\.state_dict"):
        convert.read(tmp_path / "x.pth")


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"a": Hostile()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="entries that are no tensors: a; expected a state"):
        convert.read(tmp_path / "x.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x80\x02K"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_garbage(tmp_path, content, suffix):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.\w+ is (damaged|no readable)"):
        convert.read(path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_truncated(tmp_path, state, suffix):
    path = tmp_path / f"x.{suffix}"
    convert.write(path, state)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=r"x\.\w+ is (damaged|no readable)"):
        convert.read(path)


def test_a_damaged_directory_of_entries(tmp_path, state):
    path = tmp_path / "x.pth"
    convert.write(path, state)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x06\x07") + 16] = 2  # the number of disks it claims to lie on
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"x\.pth is damaged or no torch file \(\w+: zipfiles"
    ):
        convert.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "holds a list, expected a state dict"),
        ({"epoch": 3}, "entries that are no tensors: epoch"),
        ({}, "holds no tensors"),
    ],
)
def test_not_a_state_dict(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=message):
        convert.read(tmp_path / "x.pth")


def test_paths_that_cannot_be(tmp_path, state):
    with pytest.raises(CheckpointError, match=r"none\.pth does not exist"):
        convert.read(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=r"y\.npz: write to one of \.pth"):
        convert.write(tmp_path / "y.npz", state)
    with pytest.raises(CheckpointError, match="no entry 'state_dict': use .pth"):
        convert.write(tmp_path / "y.safetensors", state, wrapper="state_dict")


def test_safetensors_are_those_of_the_library(tmp_path):
    """Streamed, yet byte for byte the same."""
    rng = np.random.default_rng(0)
    arrays = {}
    for dtype in "bool u1 i1 f2 bfloat16 i2 u2 f4 i4 u4 f8 i8 u8 c8 float8_e4m3fn".split():
        dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
        arrays |= {f"{name}.{dtype}": rng.integers(0, 2, (2, 3)).astype(dtype) for name in "ba"}
    arrays |= {'odd "name"\n é': np.ones(3), "scalar": np.array(3), "none": np.zeros((0, 2))}
    convert.write(tmp_path / "ours.safetensors", arrays)
    metadata = {"format": "pt"}
    safetensors.numpy.save_file(arrays, tmp_path / "theirs.safetensors", metadata=metadata)
    ours, theirs = ((tmp_path / f"{n}.safetensors").read_bytes() for n in ("ours", "theirs"))
    assert ours == theirs
    back = convert.read(tmp_path / "ours.safetensors")
    assert all(
        np.array_equal(back[key], array.astype(back[key].dtype)) for key, array in arrays.items()
    )
    with pytest.raises(CheckpointError, match="cannot be written .safetensors files hold no <U4"):
        convert.write(tmp_path / "ours.safetensors", {"a": np.array(["text"])})


@contextlib.contextmanager
def full_disk(room: int):
    """No file may grow beyond `room` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_a_full_disk_keeps_the_old_file(tmp_path, state, name):
    convert.write(tmp_path / name, state)
    before = (tmp_path / name).read_bytes()
    with full_disk(10_000), pytest.raises(CheckpointError, match=f"{name} cannot be written .*unt"):
        convert.write(tmp_path / name, {"a": np.zeros(100_000, np.float32)})
    assert (tmp_path / name).read_bytes() == before
    assert os.listdir(tmp_path) == [name]


def test_tensors_that_no_file_holds(tmp_path, state):
    convert.write(tmp_path / "x.pth", state)
    with pytest.raises(CheckpointError, match=r"x\.pth cannot be written .*numpy\.str_"):
        convert.write(tmp_path / "x.pth", {"a": np.array(["text"])})
    assert convert.read(tmp_path / "x.pth").keys() == state.keys()
    assert os.listdir(tmp_path) == ["x.pth"]


def test_a_folder_that_cannot_be_made(tmp_path, state):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"file/x\.pth cannot be written"):
        convert.write(tmp_path / "file" / "x.pth", state)


WITHOUT_TORCH = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Block())
import numpy as np
import convert
from flaxseg.errors import CheckpointError

def message(error, function, *args):
    try:
        function(*args)
    except error as caught:
        return str(caught)

hint = "needs PyTorch: pip install 'flaxseg[torch]'"
convert.write("x.safetensors", {"a": np.arange(3.0)})
assert convert.read("x.safetensors")["a"].tolist() == [0, 1, 2]
assert list(convert.read("old.pth")) == ["b.weight", "a.steps"]
assert message(CheckpointError, convert.write, "new.pth", {}) == f"new.pth {hint}"
assert message(ImportError, __import__, "torch_ref") == f"torch_ref {hint}"
"""


def test_without_torch(tmp_path, state):
    convert.write(tmp_path / "old.pth", state)
    environment = {**os.environ, "PYTHONPATH": str(Path(convert.__file__).parents[1])}
    command = [sys.executable, "-c", WITHOUT_TORCH]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    assert sorted(os.listdir(tmp_path)) == ["old.pth", "x.safetensors"]
