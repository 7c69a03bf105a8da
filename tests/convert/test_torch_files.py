"""Tensors are those of torch.load, bit for bit, whatever their dtype, view and file."""

import argparse
import collections
import datetime
import io
import pathlib
import pickle
import zipfile

import numpy as np
import pytest
import torch

import convert
from convert.io import read_content
from flaxseg.errors import CheckpointError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TINY_FLOATS = (
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    torch.float8_e8m0fnu,
)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
NEW_INTEGERS = (torch.uint16, torch.uint32, torch.uint64)
OTHERS = (torch.bool, torch.complex64, torch.complex128)


def bits(tensor: torch.Tensor) -> np.ndarray:
    """As `convert.read` is to give it."""
    halves = tensor.is_floating_point() and tensor.itemsize < 4
    return (tensor.float() if halves else tensor).detach().numpy()


def same(path, expected: dict[str, torch.Tensor]):
    found = convert.read(path)
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        array = bits(tensor)
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape), key
        assert found[key].tobytes() == array.tobytes(), key


def as_torch_reads(path, weights_only: bool = True):
    same(path, torch.load(path, weights_only=weights_only))


def zipped(state, path):
    torch.save(state, path)


def old(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


def pickled(state, path):
    path.write_bytes(pickle.dumps(state))


WRITERS = [zipped, old, pickled]


def random(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    raw = torch.randint(0, 256, (*shape, dtype.itemsize), dtype=torch.uint8)
    if dtype == torch.bool:
        return raw[..., 0] > 99
    if dtype.is_complex or dtype.is_floating_point:
        return torch.randn(shape, dtype=torch.float64).abs().float().to(dtype)
    return raw.view(dtype).reshape(shape)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    "dtype", [*FLOATS, *TINY_FLOATS, *INTEGERS, *NEW_INTEGERS, *OTHERS], ids=str
)
def test_every_dtype(tmp_path, write, dtype):
    state = {"a": random(dtype, 3, 5), "b": random(dtype), "c": random(dtype, 0, 2)}
    write(state, tmp_path / "x.pth")
    same(tmp_path / "x.pth", state)


@pytest.mark.parametrize("write", WRITERS)
def test_views_of_storages(tmp_path, write):
    base = torch.arange(120.0)
    state = {
        "whole": base,
        "part": base[7:19],
        "matrix": base.view(10, 12)[2:5],
        "column": base.view(10, 12)[:, 3],
        "turned": base.view(10, 12).t(),
        "steps": base[::7],
        "expanded": base[3:6, None].expand(3, 4),
        "one number": torch.tensor(3.5).expand(2, 3),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "one row": base.view(1, 120)[:, 5:9],
        "scalar": base[33],
        "empty": base[50:50],
        "last": base[119:],
        "windows": base.unfold(0, 5, 3),
    }
    write(state, tmp_path / "x.pth")
    same(tmp_path / "x.pth", state)
    as_torch_reads(tmp_path / "x.pth") if write is not pickled else None


@pytest.mark.parametrize("write", [zipped, old])
def test_parameters_and_tensors_with_attributes(tmp_path, write):
    marked = torch.nn.Parameter(torch.randn(2, 3))
    marked.note = "ours"

    class Own(torch.Tensor):
        pass

    globals()["Own"] = Own
    Own.__qualname__ = "Own"
    own = torch.randn(4).as_subclass(Own)
    state = {"plain": torch.nn.Parameter(torch.ones(3)), "marked": marked, "own": own}
    write(state, tmp_path / "x.pth")
    del globals()["Own"]
    same(tmp_path / "x.pth", {k: v.detach().as_subclass(torch.Tensor) for k, v in state.items()})


def rezipped(path, change):
    """The archive with each member's name and bytes changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(buffer, "w") as target:
        for entry in source.infolist():
            for name, content in change(entry.filename, source.read(entry)):
                target.writestr(name, content)
    path.write_bytes(buffer.getvalue())


def test_big_endian(tmp_path):
    state = {"a": torch.randn(3, 4), "h": torch.randn(5).half(), "b": torch.randn(2).bfloat16()}
    state |= {"z": torch.randn(3, dtype=torch.complex64), "n": torch.arange(3), "t": state["a"].t()}
    torch.save(state, tmp_path / "x.pth")
    parts = {"0": 4, "1": 2, "2": 2, "3": 4, "4": 8}

    def swap(name, content):
        key = name.rpartition("/")[2]
        if "/data/" in name:
            content = np.frombuffer(content, f"u{parts[key]}").byteswap().tobytes()
        yield name, b"big" if key == "byteorder" else content

    rezipped(tmp_path / "x.pth", swap)
    as_torch_reads(tmp_path / "x.pth")
    same(tmp_path / "x.pth", state)


@pytest.mark.parametrize("top", ["archive/", "best model/", "a/b/"])
def test_the_first_archives_of_torch_in_any_folder(tmp_path, top):
    state = {"a": torch.randn(2, 3), "b": torch.arange(3)}
    torch.save(state, tmp_path / "x.pth")

    def move(name, content):
        _, _, rest = name.partition("/")
        if rest == "data.pkl" or rest.startswith("data/") or rest == "version":
            yield f"{top}{rest}", content

    rezipped(tmp_path / "x.pth", move)
    same(tmp_path / "x.pth", state)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrapper", [None, "model", "blobs"])
def test_pickles_of_arrays(tmp_path, protocol, wrapper):
    rng = np.random.default_rng(0)
    state = {
        "w": rng.standard_normal((3, 4)).astype(np.float32),
        "fortran": np.asfortranarray(rng.standard_normal((3, 4))),
        "big": rng.standard_normal(5).astype(">f4"),
        "half": rng.standard_normal(5).astype(np.float16),
        "steps": np.arange(12)[::5],
        "turned": np.arange(12, dtype=np.int32).reshape(3, 4).T,
        "flags": np.array([True, False]),
        "scalar": np.array(3),
        "empty": np.zeros((0, 3), np.float32),
    }
    content = (
        {wrapper: state, "__author__": "somebody", "lr": np.float64(0.1)} if wrapper else state
    )
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol))
    found = convert.read(tmp_path / "x.pkl")
    assert list(found) == list(state)
    for key, array in state.items():
        wide = array.astype(np.float32) if array.dtype == np.float16 else array
        assert found[key].dtype == wide.dtype.newbyteorder("=") and found[key].shape == wide.shape
        np.testing.assert_array_equal(found[key], wide)


PYTHON_2_ARRAY = (
    b"\x80\x02}q\x00U\x01wq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K"
    b"\x00\x85q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x01K\x02\x86q\x08cnumpy\ndtype\nq\tU\x02f4q\n"
    b"K\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01<q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb"
    b"\x89U\x08\x00\x00\x80?\x00\x00\x00\xc0q\x0ftq\x10bs."
)
"""{"w": numpy.float32([[1, -2]])} as Python 2 writes it, with strings for bytes."""


def test_pickles_of_python_2(tmp_path):
    (tmp_path / "x.pkl").write_bytes(PYTHON_2_ARRAY)
    np.testing.assert_array_equal(convert.read(tmp_path / "x.pkl")["w"], [[1, -2]])


class Pairs:
    """An OrderedDict, as Python 2 pickles it."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return collections.OrderedDict, ([list(item) for item in self.state.items()],)


def test_an_ordered_dict_of_python_2(tmp_path):
    state = {"b": torch.ones(2, 2), "a": torch.zeros(3)}
    old({"state_dict": Pairs(state)}, tmp_path / "x.pth")
    same(tmp_path / "x.pth", state)


class Settings(dict):
    """A dict with attributes, as configuration packages have them."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.__dict__ = self


class Config(dict):
    """Pickled like mmengine's ConfigDict: made from a dict."""

    def __reduce_ex__(self, protocol):
        return type(self), (dict(self),)


class Buffer:
    """Like mmengine's HistoryBuffer."""

    def __init__(self):
        self.log, self.count = np.array([0.7, 0.5]), np.array([1, 1])


@pytest.mark.parametrize("write", [zipped, old])
def test_harmless_objects_beside_the_tensors(tmp_path, write):
    state = collections.OrderedDict(a=torch.randn(2, 3), b=torch.arange(2))
    state._metadata = {"": {"version": 1}}
    content = {
        "meta": Config(dataset_meta=Settings(classes=("sky", "road")), epoch=3, time="noon"),
        "state_dict": state,
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs/a")),
        "best": np.float64(0.7),
        "count": np.int64(3),
        "when": datetime.datetime(2024, 1, 2),
        "took": datetime.timedelta(3),
        "messages": {"loss": Buffer(), "sets": [{1, 2}, frozenset("ab")], "kind": Settings},
        "counts": collections.Counter("aab"),
        "defaults": collections.defaultdict(list, a=[1]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "size": torch.Size([2, 3]),
        "plain": [1, 2.5, None, True, 10**30, b"bytes", bytearray(b"x"), 1j, "text", ...],
        (1, (2, 3)): "a key that is a tuple",
    }
    write(content, tmp_path / "x.pth")
    same(tmp_path / "x.pth", state)
    meta = read_content(tmp_path / "x.pth").meta
    assert meta["dataset_meta"]["classes"] == ("sky", "road") and meta["epoch"] == 3


@pytest.mark.parametrize("cls", [Settings, Config, collections.OrderedDict])
def test_state_dicts_of_any_mapping(tmp_path, cls):
    state = cls(a=torch.randn(2, 3))
    torch.save(cls(model=state), tmp_path / "x.pth")
    same(tmp_path / "x.pth", dict(state))


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    torch.save({"a": torch.ones(1000, 1000), "b": torch.ones(3)}, tmp_path / "x.pth")
    arrays = read_content(tmp_path / "x.pth").arrays
    assert (arrays["a"].shape, arrays["a"].size, arrays["a"].nbytes) == (
        (1000, 1000),
        10**6,
        4 * 10**6,
    )
    assert not isinstance(arrays["a"], np.ndarray)
    with open(tmp_path / "x.pth", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(CheckpointError, match=r"x\.pth has become shorter"):
        np.asarray(arrays["a"])


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_kinds_of_tensors_that_are_no_arrays(tmp_path):
    quantised = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    sparse = torch.eye(3).to_sparse()
    conjugate = torch.ones(2, 2, dtype=torch.complex64).conj()
    for tensor in (quantised, sparse, conjugate):
        torch.save({"a": torch.ones(2, 2), "odd": tensor}, tmp_path / "x.pth")
        with pytest.raises(CheckpointError, match=r"x\.pth: odd is a tensor of (a kind|QInt8)"):
            convert.read(tmp_path / "x.pth")


def test_torchscript(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        for name in ("code/__torch__.py", "constants.pkl", "data.pkl"):
            archive.writestr(f"net/{name}", b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="TorchScript archive.*torch.jit.load"):
        convert.read(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "page of HTML"),
        (b"\n<html><body>Sign in</body></html>", "page of HTML"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "HDF5 file"),
        (b"\x08\x07\x12\x07pytorch" + bytes(90), "ONNX file"),
        (b"\x1f\x8b\x08\x00" + bytes(90), "gzip"),
        (b"\x93NUMPY\x01\x00" + bytes(90), "numpy array"),
        (b'{"error": "Entry not found"}', "JSON text"),
        (b"x" * 257 + b"ustar" + bytes(300), "tar archive"),
        (b"PK\x05\x06" + bytes(18), "zip archive without a data.pkl"),
    ],
)
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "x"])
def test_files_of_other_kinds_say_what_they_are(tmp_path, content, what, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} .*{what}"):
        convert.read(tmp_path / name)


@pytest.mark.parametrize("name", ["best.pth.tar", "UPPER.PTH", "weights", "x.pkl", "x.safetensors"])
@pytest.mark.parametrize("write", WRITERS)
def test_endings_do_not_matter(tmp_path, write, name):
    state = {"a": torch.randn(2, 3)}
    write(state, tmp_path / name)
    same(tmp_path / name, state)


@pytest.mark.parametrize("length", [640, 896, 1024])
def test_safetensors_by_any_name(tmp_path, length):
    """A header of 640 bytes starts like a pickle."""
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(length)
    content = length.to_bytes(8, "little") + header + np.float32([1, 2]).tobytes()
    (tmp_path / "model.bin").write_bytes(content)
    assert convert.read(tmp_path / "model.bin")["a"].tolist() == [1, 2]
