"""Finds the tensors of PyTorch's and numpy's pickles in their files, without PyTorch.

Since PyTorch 1.6 `torch.save` writes a zip archive of stored members: `data.pkl` with the
structure, and one member under `data/` for each storage, which the pickle names by a persistent id.
Before, a file was five pickles and then the storages, each behind its number of elements. A tensor
is a view of a storage: offset, size and stride. `Inert` values stand for all of these until a
tensor is asked for.
"""

import dataclasses
import io
import math
import mmap
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from convert import pickles
from convert.pickles import Inert, Symbol
from flaxseg.errors import CheckpointError
from flaxseg.model_dir import StoredTensor, TensorFile

MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of files older than PyTorch 1.6."""

TOP = "data.pkl"
"""The member with the structure, in a folder of any name."""

LOCAL_HEADER = 30
"""Bytes of a member's own header in a zip archive, without its name and its padding."""

MOST_AXES = 32
MOST_WRAPPERS = 8

STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
}
"""torch.FloatStorage and so on -> name of the dtype."""

UNTYPED = "UntypedStorage"
"""Bytes: whoever views them says the dtype."""

DTYPES = frozenset(STORAGES.values()) | {
    *("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"),
    *("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
}
"""Of torch, as far as numpy and ml_dtypes have them, under the same names."""

OURS = "little" if sys.byteorder == "little" else "big"
NUMPY = ("numpy.core.", "numpy._core.")
WRAPPED = (
    "_rebuild_parameter",
    "_rebuild_parameter_with_state",
    "_rebuild_device_tensor_from_numpy",
)
SUBCLASSED = ("_rebuild_from_type", "_rebuild_from_type_v2")
VIEWS = {"_rebuild_tensor": 4, "_rebuild_tensor_v2": 6, "_rebuild_tensor_v3": 7}
"""Functions that make a view of a storage -> which argument holds the view's peculiarities."""


class Place(NamedTuple):
    """Where numbers stand: `size` bytes of a file, from `offset`."""

    file: io.RawIOBase | io.BytesIO
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Pickle:
    """A checkpoint whose structure is read, and whose numbers are not.

    Attributes:
        content: of `convert.pickles`.
        storages: key of a storage -> where it lies.
        swapped: its numbers are not in this machine's byte order.
        inner: files of torch.save within the pickle that were read so far, by their identity.
    """

    content: Any
    storages: dict[str, Place]
    swapped: bool = False
    inner: dict[int, "Pickle"] = dataclasses.field(default_factory=dict)


def read_archive(path: Path) -> Pickle:
    """A checkpoint of `torch.save` since PyTorch 1.6.

    Raises:
        CheckpointError: it is an archive of something else, or one that torch never writes.
        Exception: any, where it is damaged.
    """
    members = _members(path)
    top = next((n.removesuffix(TOP) for n in members if f"/{n}".endswith(f"/{TOP}")), None)
    if top is None:
        listed = ", ".join(list(members)[:3]) or "nothing"
        raise CheckpointError(
            f"{path} is a zip archive without a data.pkl, so none of PyTorch's (it holds {listed}):"
            " unpack it, or give the file that torch.save wrote"
        )
    if f"{top}constants.pkl" in members:
        raise CheckpointError(
            f"{path} is a TorchScript archive, a program with its weights: load it with "
            "torch.jit.load and save its state_dict()"
        )
    order = members.get(f"{top}byteorder")
    swapped = order is not None and _bytes(order) != OURS.encode()
    content = pickles.load(io.BytesIO(_bytes(members[top + TOP]))).value
    data = f"{top}data/"
    found = {name[len(data) :]: place for name, place in members.items() if name.startswith(data)}
    return Pickle(content, found, swapped)


def _members(path: Path) -> dict[str, Place]:
    """Every member of a zip archive, none of them unpacked.

    Raises:
        CheckpointError: a member is compressed, or lies over another: a small file that unpacks to
            a large one.
    """
    with zipfile.ZipFile(path) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    ends = [*(entry.header_offset for entry in entries), path.stat().st_size][1:]
    file, places = TensorFile(path), {}
    for entry, end in zip(entries, ends, strict=True):
        file.seek(entry.header_offset)
        header = file.read(LOCAL_HEADER)
        lengths = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        start = entry.header_offset + LOCAL_HEADER + sum(lengths)
        if header[:4] != b"PK\x03\x04" or entry.filename in places or entry.flag_bits & 1:
            raise ValueError(f"its directory of entries does not fit {entry.filename}")
        if entry.compress_type != zipfile.ZIP_STORED or start + entry.file_size > end:
            total = sum(entry.file_size for entry in entries)
            raise CheckpointError(
                f"{path} is compressed, or overlaps itself, and would unpack to {total:,} bytes, "
                "which torch never writes: it is damaged or hostile"
            )
        places[entry.filename] = Place(file, start, entry.file_size)
    return places


def _bytes(place: Place) -> bytes:
    place.file.seek(place.offset)
    return place.file.read(place.size) or b""


def read_pickle(path: Path) -> Pickle:
    """A bare pickle, or a checkpoint of `torch.save` before PyTorch 1.6.

    Raises:
        Exception: any, where it is damaged.
    """
    file = TensorFile(path)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return _read_pickles(mapped, file, len(mapped))


def _read_pickles(readable: Any, file: io.RawIOBase | io.BytesIO, end: int) -> Pickle:
    content = pickles.load(readable).value
    if content != MAGIC:
        return Pickle(content, {})
    pickles.load(readable)  # the version, always 1001
    pickles.load(readable)  # sizes of integers where it was written
    content, ids = pickles.load(readable)
    keys = pickles.load(readable).value
    widths = {ident[2]: _stored_as(ident[1]).itemsize for ident in ids if _names_storage(ident)}
    places, at = {}, readable.tell()
    for key in keys:
        readable.seek(at)
        size = int.from_bytes(readable.read(8), "little") * widths[key]
        places[key] = Place(file, at + 8, size)
        at += 8 + size
        if at > end:
            raise ValueError("the file ends within its tensors")
    return Pickle(content, places)


def is_tensor(value: Any) -> bool:
    """Whether a value of a pickle stands for a tensor, or a numpy array of numbers."""
    if not isinstance(value, Inert) or not isinstance(value.maker, Symbol):
        return False
    module, name = value.maker
    if module.startswith("torch"):
        return name.startswith("_rebuild")
    array = module.startswith(NUMPY) and name in ("_reconstruct", "_frombuffer")
    return array and _array_dtype(value) is not None


def axes(value: Inert) -> int:
    """How many axes a tensor has; two for one of an unknown kind."""
    for _ in range(MOST_WRAPPERS):
        value = _unwrapped(value)
    if not is_tensor(value):
        return 2
    if value.maker.name == "_reconstruct":
        return len(value.state[1])
    return len(value.args[2]) if value.maker.name in (*VIEWS, "_frombuffer") else 2


def tensor(value: Inert, pickle: Pickle) -> StoredTensor:
    """The tensor that a value of a pickle stands for.

    Raises:
        CheckpointError: a kind of tensor that is no plain array, or a view beyond its storage.
    """
    for _ in range(MOST_WRAPPERS):
        value = _unwrapped(value)
    if not is_tensor(value):
        raise CheckpointError("a tensor around what is none: the file is damaged or hostile")
    if not value.maker.module.startswith("torch"):
        return _array(value)
    where = VIEWS.get(value.maker.name)
    if where is None or any(any(marks.values()) for marks in value.args[where:]):
        raise CheckpointError(
            f"a tensor of a kind that is no plain array ({value.maker.name.lstrip('_')}), such as "
            "quantised or sparse: turn it into a plain one with its own program and save that"
        )
    return _view(value.args, pickle)


def _unwrapped(value: Any) -> Any:
    """What a parameter or a tensor of a class of its own is made from; others as they are."""
    if not is_tensor(value) or not value.maker.module.startswith("torch"):
        return value
    if value.maker.name in WRAPPED:
        return value.args[0]
    if value.maker.name in SUBCLASSED:
        return Inert(value.args[0], value.args[2])
    return value


def _view(arguments: tuple[Any, ...], pickle: Pickle) -> StoredTensor:
    storage, offset, shape, strides, *rest = arguments
    place, dtype, swapped = _storage(storage, pickle)
    dtype = dtype or _dtype(rest[2].name)
    used = sum((count - 1) * step for count, step in zip(shape, strides, strict=True))
    whole = all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *strides))
    if not whole or (all(shape) and (offset + used + 1) * dtype.itemsize > place.size):
        raise CheckpointError("a tensor beyond its storage: the file is damaged or hostile")
    steps = tuple(step if count > 1 else 0 for count, step in zip(shape, strides, strict=True))
    return _stored(place, shape, dtype, offset * dtype.itemsize, steps, swapped)


def _stored(
    place: Place,
    shape: tuple[int, ...],
    dtype: np.dtype,
    offset: int,
    strides: tuple[int, ...],
    swapped: bool,
) -> StoredTensor:
    """A tensor whose view fits its storage.

    Raises:
        CheckpointError: no memory could hold such a tensor.
    """
    if len(shape) > MOST_AXES or dtype.itemsize * math.prod(n for n in shape if n) >= 2**62:
        raise CheckpointError("a tensor of an impossible shape: the file is damaged or hostile")
    in_order = strides == tuple(
        math.prod(shape[axis + 1 :]) if count > 1 else 0 for axis, count in enumerate(shape)
    )
    return StoredTensor(
        place.file,
        tuple(shape),
        dtype,
        place.offset + offset,
        strides=None if in_order else strides,
        swapped=swapped,
    )


def _names_storage(ident: Any) -> bool:
    return isinstance(ident, tuple) and len(ident) >= 5 and ident[0] == "storage"


def _storage(value: Any, pickle: Pickle) -> tuple[Place, np.dtype | None, bool]:
    """Where a storage lies, its dtype if it has one, and whether its bytes are swapped."""
    if isinstance(value, Inert) and str(value.maker) == "torch.storage._load_from_bytes":
        if id(value) not in pickle.inner:  # pickled by itself, a storage is a file of torch.save
            content = io.BytesIO(value.args[0])
            pickle.inner[id(value)] = _read_pickles(content, content, len(value.args[0]))
        pickle = pickle.inner[id(value)]
        value = pickle.content
    kept = isinstance(value, Inert) and value.maker is pickles.PERSISTENT
    ident: Any = value.args[0] if kept else None
    if not _names_storage(ident):
        raise CheckpointError("a tensor without a storage: the file is damaged or hostile")
    _, kind, key, _, count, *view = ident
    place = pickle.storages[key]
    dtype = _stored_as(kind)
    if kind.name == UNTYPED:
        return place, None, pickle.swapped
    if view and view[0] is not None:  # before PyTorch 1.6, a part of another storage
        _, first, count = view[0]
        if not 0 <= first * dtype.itemsize <= place.size:
            raise CheckpointError(
                "a tensor in a part beyond its storage: the file is damaged or hostile"
            )
        start = first * dtype.itemsize
        place = Place(place.file, place.offset + start, place.size - start)
    if not 0 <= count * dtype.itemsize <= place.size:
        raise CheckpointError("a tensor whose storage is cut off: the file is damaged")
    return place._replace(size=count * dtype.itemsize), dtype, pickle.swapped


def _stored_as(kind: Symbol) -> np.dtype:
    name = kind.name.removesuffix("Storage")
    return _dtype("uint8" if kind.name == UNTYPED else STORAGES.get(name, name))


def _dtype(name: str) -> np.dtype:
    """A dtype by its name in torch."""
    if name not in DTYPES:
        raise CheckpointError(f"a tensor of {name}, which numpy lacks: save it as float32")
    return np.dtype(getattr(ml_dtypes, name, name))


def _array_dtype(value: Inert) -> np.dtype | None:
    """Of a numpy array; None if it holds no numbers."""
    parts = value.args if value.maker.name == "_frombuffer" else value.state
    made = parts[-3] if isinstance(parts, tuple) and len(parts) in (4, 5) else None
    if not isinstance(made, Inert) or str(made.maker) != "numpy.dtype":
        return None
    try:
        name, order = made.args[0], made.state[1] if made.state else "="
        if name[0] not in "fiubc" or not name[1:].isdigit():
            return None
        return np.dtype(("<" if order == "|" else order) + name)
    except (TypeError, LookupError):
        return None


def _array(value: Inert) -> StoredTensor:
    """A numpy array, whose bytes stand in the pickle itself."""
    if value.maker.name == "_frombuffer":
        content, _, shape, order = value.args
    else:
        _, shape, _, fortran, content = value.state
        order = "F" if fortran else "C"
    if isinstance(content, Inert):  # bytes, as Python 3 writes them for Python 2
        content = content.args[0] if content.args else b""
    if isinstance(content, str):
        content = content.encode("latin-1")
    dtype = _array_dtype(value)
    assert dtype is not None  # is_tensor has looked
    native = dtype.newbyteorder("=")
    place = Place(io.BytesIO(content), 0, len(content))
    turned = shape[::-1] if order == "F" else shape
    steps = [math.prod(turned[axis + 1 :]) for axis in range(len(turned))]
    strides = tuple(steps[::-1] if order == "F" else steps)
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise CheckpointError("an array of an impossible shape: the file is damaged or hostile")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise CheckpointError("an array that lacks numbers: the file is damaged")
    strides = tuple(step if count > 1 else 0 for count, step in zip(shape, strides, strict=True))
    return _stored(place, shape, native, 0, strides, swapped=native != dtype)
