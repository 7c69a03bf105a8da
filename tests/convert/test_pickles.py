"""Pickles of every instruction run nothing and cost nothing, alone and beside real weights."""

import argparse
import copyreg
import io
import os
import pickle
import resource
import struct
import sys
import zipfile

import pytest
import torch

import convert
from convert import pickles
from convert.pickles import Inert, Symbol
from flaxseg.errors import CheckpointError


class Trap:
    """Writes the canary's file by every door that a pickle has into a class."""

    path = ""

    def __new__(cls, *args):
        cls.spring()
        return object.__new__(cls)

    @classmethod
    def spring(cls, *args):
        open(cls.path, "w").close()

    __init__ = __setstate__ = append = extend = __setitem__ = spring


@pytest.fixture
def canary(tmp_path, monkeypatch):
    monkeypatch.setattr(Trap, "path", str(tmp_path / "canary"))
    trap = (__name__, "Trap")
    copyreg.add_extension(*trap, 200)
    yield tmp_path / "canary"
    copyreg.remove_extension(*trap, 200)


TRAP = f"{__name__}\nTrap\n".encode()
NAME = b"\x8c" + bytes([len(__name__)]) + __name__.encode() + b"\x8c\x04Trap"
OS = b"cposix\nsystem\n"
TOUCH = b"\x8c\x11touch canary-file"
CALLS = {
    "REDUCE": b"c" + TRAP + b")R",
    "STACK_GLOBAL": NAME + b"\x93)R",
    "NEWOBJ": b"c" + TRAP + b")\x81",
    "NEWOBJ_EX": b"c" + TRAP + b")}\x92",
    "INST": b"(i" + TRAP,
    "OBJ": b"(c" + TRAP + b"o",
    "BUILD": b"c" + TRAP + b")\x81}\x8c\x01aK\x01sb",
    "APPENDS": b"c" + TRAP + b")\x81(K\x01K\x02e",
    "SETITEMS": b"c" + TRAP + b")\x81(K\x01K\x02u",
    "EXT1": b"\x82\xc8)R",
    "EXT2": b"\x83\xc8\x00)R",
    "EXT4": b"\x84\xc8\x00\x00\x00)R",
    "system": OS + TOUCH + b"\x85R",
    "key": b"}c" + TRAP + b")RK\x01s",
    "set": b"\x8f(c" + TRAP + b")R\x90",
    "frozenset": b"(c" + TRAP + b")R\x91",
}
"""Instructions that push what a call makes."""

IDS = {"PERSID": b"Pstorage\n", "BINPERSID": b"\x8c\x07storageQ"}


@pytest.mark.parametrize("name", CALLS)
def test_the_traps_are_traps(canary, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(b"\x80\x04" + CALLS[name] + b".")
    assert canary.exists() or (tmp_path / "canary-file").exists()


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/data.pkl", content)
        archive.writestr("x/version", "3\n")
        archive.writestr("x/data/0", struct.pack("<4f", 1, 2, 3, 4))
    return buffer.getvalue()


WEIGHTS = (
    b"}\x8c\x01wctorch._utils\n_rebuild_tensor_v2\n((\x8c\x07storagectorch\nFloatStorage\n"
    b"\x8c\x010\x8c\x03cpuK\x04tQK\x00(K\x02K\x02t(K\x02K\x01t\x89NtRs"
)
"""{"w": [[1, 2], [3, 4]]} of the storage "0"."""


def beside_weights(instructions: bytes) -> bytes:
    """{"state_dict": WEIGHTS, "extra": what the instructions push}."""
    return b"\x80\x04}(\x8c\x0astate_dict" + WEIGHTS + b"\x8c\x05extra" + instructions + b"u."


def check_read(path):
    assert convert.read(path)["w"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("name", [*CALLS, *IDS])
def test_beside_weights_they_are_passed_over(canary, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pth").write_bytes(zipped(beside_weights({**CALLS, **IDS}[name])))
    check_read(tmp_path / "x.pth")
    assert os.listdir(tmp_path) == ["x.pth"]


@pytest.mark.parametrize("name", [*CALLS, *IDS])
@pytest.mark.parametrize("wrap", [zipped, bytes])
def test_alone_they_are_refused(canary, name, wrap, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pth").write_bytes(wrap(b"\x80\x04" + {**CALLS, **IDS}[name] + b"."))
    with pytest.raises(CheckpointError, match=r"x\.pth") as error:
        convert.read(tmp_path / "x.pth")
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["x.pth"]


def test_a_function_in_place_of_torchs_is_not_called(canary, tmp_path):
    content = beside_weights(b"N").replace(b"torch._utils\n_rebuild_tensor_v2\n", TRAP)
    (tmp_path / "x.pth").write_bytes(zipped(content))
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        convert.read(tmp_path / "x.pth")
    assert not canary.exists()


DEPTH = 50_000
DEEP_CALLS = 10_000
NESTED = {
    "tuples": b")" + b"\x85" * DEPTH,
    "lists": b"]" * DEPTH + b"a" * (DEPTH - 1),
    "dicts": b"}" + b"\x8c\x01a}" * DEPTH + b"s" * DEPTH,
    "marks": b"(" * DEPTH + b"t" * DEPTH,
    "calls": b"cos\nsystem\n" + b")R" * DEEP_CALLS,
    "arguments": b")" + b"q\x000cos\nsystem\nh\x00\x85R" * DEEP_CALLS,
    "states": b"cos\nsystem\n)\x81" * DEEP_CALLS + b"b" * (DEEP_CALLS - 1),
    "entries": b"cos\nsystem\n)\x81"
    + b"\x8c\x01acos\nsystem\n)\x81" * DEEP_CALLS
    + b"s" * DEEP_CALLS,
    "a key": b"})" + b"\x85" * DEPTH + b"Ns",
    "a list of itself": b"]\x94h\x00a",
    "a dict of itself": b"}\x94\x8c\x01ah\x00s",
    "an object of itself": b"cos\nsystem\n)\x81\x94h\x00b",
    "doubled": b")" + b"2\x86" * 300,
    "doubled as a key": b"})" + b"2\x86" * 300 + b"Ns",
    "doubled names": b"}" + b"(\x8c\x01a" + b")" + b"2\x86" * 300 + b"\x8c\x01b" + b")u",
}


@pytest.mark.parametrize("name", NESTED)
def test_nesting_without_end(name, tmp_path):
    path = tmp_path / "x.pth"
    for wrap in (zipped, bytes):
        path.write_bytes(wrap(b"\x80\x04" + NESTED[name] + b"."))
        with pytest.raises(CheckpointError, match=r"x\.pth") as error:
            convert.read(path)
        assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    path.write_bytes(zipped(beside_weights(NESTED[name])))
    check_read(path)


def test_parameters_around_parameters(tmp_path):
    content = beside_weights(b"N").replace(
        b"\x8c\x01w", b"\x8c\x01w" + b"ctorch._utils\n_rebuild_parameter\n" * 1000
    )
    content = content.replace(b"\x89NtR", b"\x89NtR" + b"\x85R" * 1000)
    (tmp_path / "x.pth").write_bytes(zipped(content))
    with pytest.raises(CheckpointError, match=r"x\.pth: w is a tensor of a kind that is no plain"):
        convert.read(tmp_path / "x.pth")


BOMBS = {
    "LONG_BINPUT": b"r\xff\xff\xff\x7f0N",
    "PUT": b"Np99999999999999999999\n",
    "BINBYTES8": b"\x8e\xff\xff\xff\xff\xff\xff\x00\x00",
    "BINUNICODE8": b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
    "BYTEARRAY8": b"\x96\x00\x00\x00\x00\x00\x01\x00\x00",
    "LONG4": b"\x8b\xff\xff\xff\x7f",
    "negative LONG4": b"\x8b\xff\xff\xff\xff",
    "BINSTRING": b"T\xff\xff\xff\x7f",
    "FRAME": b"\x95\xff\xff\xff\xff\xff\xff\xff\x7fN",
    "INT": b"I" + b"9" * 100_000 + b"\n",
    "NEXT_BUFFER": b"\x97",
    "without values": b"R",
    "POP": b"000",
    "GET": b"h\x07",
}


@pytest.mark.parametrize("name", BOMBS)
def test_lengths_that_lie_cost_nothing(name, tmp_path, small_memory):
    for content in (b"\x80\x04" + BOMBS[name] + b".", beside_weights(BOMBS[name])):
        for wrap in (zipped, bytes):
            (tmp_path / "x.pth").write_bytes(wrap(content))
            try:
                check_read(tmp_path / "x.pth")
            except CheckpointError as error:
                assert str(tmp_path / "x.pth") in str(error) and "MemoryError" not in str(error)


@pytest.fixture
def small_memory():
    """Half a gigabyte more than now."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**29, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"(K\x02K\x02t(K\x02K\x01t", b"(K\x02K\x03t(K\x02K\x01t", "beyond its storage"),
        (b"QK\x00(", b"QK\x01(", "beyond its storage"),
        (b"QK\x00(", b"QJ\xff\xff\xff\xff(", "beyond its storage"),
        (b"t(K\x02K\x01t", b"t(K\x03K\x01t", "beyond its storage"),
        (b"t(K\x02K\x01t", b"t(J\xfe\xff\xff\xffK\x01t", "beyond its storage"),
        (b"(K\x02K\x02t(", b"(K\x02J\xfe\xff\xff\xfft(", "beyond its storage"),
        (b"cpuK\x04t", b"cpuK\x05t", "storage is cut off"),
        (b"cpuK\x04t", b"cpuJ\xff\xff\xff\xfft", "storage is cut off"),
        (b"FloatStorage", b"DoubleStorage", "storage is cut off"),
        (b"FloatStorage", b"object", "tensor of object, which numpy lacks"),
        (b"FloatStorage", b"finfo", "tensor of finfo, which numpy lacks"),
        (b"\x8c\x010\x8c", b"\x8c\x011\x8c", "damaged"),
        (b"\x8c\x07storage", b"\x8c\x06module", "without a storage"),
        (b"_v2\n(", b"_v9\n(", "no plain array"),
        (b"(K\x02K\x02t(K\x02K\x01t", b"(J\0\0\0\x10J\0\0\0\x10t(K\0K\0t", "would unpack to"),
        (
            b"(K\x02K\x02t(K\x02K\x01t",
            b"(K\0\x8a\x09" + bytes(8) + b"\x01t(K\0K\0t",
            "impossible shape",
        ),
    ],
)
def test_views_are_checked_against_their_storage(tmp_path, old, new, message):
    content = beside_weights(b"N")
    assert content.count(old) == 1
    (tmp_path / "x.pth").write_bytes(zipped(content.replace(old, new)))
    with pytest.raises(CheckpointError, match=rf"x\.pth.*{message}") as error:
        convert.read(tmp_path / "x.pth")
    assert "\n" not in str(error.value)


def test_compressed_and_overlapping_archives_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", beside_weights(b"N"))
        archive.writestr("x/data/0", bytes(10**6))
    with pytest.raises(CheckpointError, match=r"x\.pth is compressed.* unpack to 1,000,"):
        convert.read(path)
    content = bytearray(zipped(beside_weights(b"N")))
    second = content.rindex(b"PK\x01\x02")
    content[second + 42 : second + 46] = bytes(4)  # it lies where the first one lies
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pth is (compressed, or overlaps|damaged)"):
        convert.read(path)


def test_what_a_pickle_holds():
    content = [Symbol, {"a": (1, 2.5, None, True, b"x")}, {1}, {(1, 2): 3}, Trap]
    found = pickles.load(io.BytesIO(pickle.dumps(content, 4))).value
    assert (
        found[0] == Symbol("convert.pickles", "Symbol")
        and str(found[0]) == "convert.pickles.Symbol"
    )
    assert found[1] == {"a": (1, 2.5, None, True, b"x")} and found[2] == [1]
    assert [repr(key) for key in found[3]] == ["<pickle.key>"] and found[4].name == "Trap"


@pytest.mark.parametrize("protocol", range(6))
def test_objects_become_inert(protocol):
    content = argparse.Namespace(lr=0.1, names=["a"])
    found = pickles.load(io.BytesIO(pickle.dumps(content, protocol))).value
    assert isinstance(found, Inert) and found.kind == "argparse.Namespace"
    assert found.state == {"lr": 0.1, "names": ["a"]} and repr(found) == "<argparse.Namespace>"
    assert found != content and {found: 1}[found] == 1


def test_torch_itself_would_read_the_weights(tmp_path):
    (tmp_path / "x.pth").write_bytes(zipped(beside_weights(b"N")))
    content = torch.load(tmp_path / "x.pth", weights_only=False)
    assert content["state_dict"]["w"].tolist() == [[1, 2], [3, 4]]
    assert sys.getrecursionlimit() < DEPTH
