"""The one place that reads and writes the peers' files.

The first bytes say what a file is, never its ending. Reading runs nothing from the file and needs
no PyTorch; torch is imported to write a torch file.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from convert.contents import choose
from convert.torch_files import Pickle, read_archive, read_pickle, tensor
from convert.wrappers import without_words
from flaxseg.errors import CheckpointError
from flaxseg.model_dir import DamagedTensorsError, Tensor, open_tensors, save_tensors

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
SAFETENSORS = ".safetensors"
"""Endings that `write` chooses the kind of file by."""

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
STRANGERS = {
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with git lfs pull",
    b"<": "a page of HTML or XML, perhaps an error of the server: fetch the file again",
    b"{": "JSON text: give the file with the weights",
    b"\x89HDF": "an HDF5 file, such as Keras writes: only torch and safetensors files are read",
    b"\x08": "an ONNX file or TensorFlow's: give the checkpoint that it was made from",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"BZh": "compressed with bzip2: unpack it first",
    b"\xfd7zXZ": "compressed with xz: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it first",
    b"\x93NUMPY": "a single numpy array: give the file with all the weights",
    b"GGUF": "a GGUF file: give the checkpoint that it was made from",
}
"""First bytes of files that people take for checkpoints -> what they are."""

LONGEST_SIGN = 512
TAR = b"ustar"
TAR_AT = 257

ROOM = 8
LEAST_ROOM = 2**28
"""Tensors may share storages, and be views of one number: together they may take so many times the
file's size in memory, or so many bytes."""


class Content(NamedTuple):
    """What a checkpoint file holds.

    Attributes:
        arrays: the state dict, in the file's order; each tensor is read when it is asked for.
        meta: what a training script has noted beside it, such as class names.
        dtypes: of the floating-point tensors in the file, by name.
        wrappers: what stood around the state dict, entries and prefixes, from the outside.
        others: names of further sets of tensors in the file, such as averages of these weights.
    """

    arrays: dict[str, Tensor]
    meta: dict[str, Any]
    dtypes: tuple[str, ...]
    wrappers: tuple[str, ...]
    others: tuple[str, ...] = ()


def read(path: str | os.PathLike, *, weights: str | None = None) -> dict[str, np.ndarray]:
    """The state dict of a checkpoint file as arrays, in the file's order.

    Entries around it are taken off, and what wrappers of PyTorch's put into the keys (`module.` and
    the like); float16, bfloat16 and float8 become float32, which is exact.

    Args:
        path: a torch file, a pickle of arrays, or a safetensors file, with any ending.
        weights: name of the set of tensors, where the file holds several.

    Raises:
        CheckpointError: the file is missing, broken, needs code execution, holds no tensors or
            several sets of them.
    """
    arrays = read_content(path, weights=weights).arrays
    names = without_words(arrays)
    return {names[key]: np.asarray(array) for key, array in arrays.items()}


def read_content(path: str | os.PathLike, *, weights: str | None = None) -> Content:
    """Like `read`, with what stands in the file besides the tensors, and none of these read yet."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist or is no file")
    try:
        return _open(path, weights)
    except CheckpointError:
        raise
    except (DamagedTensorsError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or cannot be read ({error})") from None
    except Exception as error:  # hostile or cut bytes raise anything
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CheckpointError(f"{path} is damaged or no torch file ({reason})") from error


def _open(path: Path, weights: str | None) -> Content:
    """What the file holds, by its first bytes."""
    with open(path, "rb") as file:
        start = file.read(LONGEST_SIGN)
    if not start:
        raise CheckpointError(f"{path} is damaged: it is empty; fetch it again")
    if is_safetensors(start, path.stat().st_size):
        if weights is not None:
            raise CheckpointError(f"{path} holds one set of tensors: leave --weights {weights} out")
        return _content(path, open_tensors(path), {}, ())
    if start.startswith(ZIP):
        return _of_pickle(path, read_archive(path), weights)
    for sign, what in STRANGERS.items():
        if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(sign):
            raise CheckpointError(f"{path} is damaged or no checkpoint: it is {what}")
    if start[TAR_AT:].startswith(TAR):
        raise CheckpointError(f"{path} is no checkpoint: it is a tar archive: unpack it first")
    return _of_pickle(path, read_pickle(path), weights)


def is_safetensors(start: bytes, size: int) -> bool:
    """Whether a file of so many bytes starts as safetensors: the length of its header, and JSON."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") + 8 <= size


def _of_pickle(path: Path, pickle: Pickle, weights: str | None) -> Content:
    chosen, others = choose(path, pickle.content, weights)
    arrays = {}
    for key, value in chosen.tensors.items():
        try:
            arrays[key] = tensor(value, pickle)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {key} is {error}") from None
    content = _content(path, arrays, chosen.meta, chosen.path)
    return content._replace(others=others)


def _content(
    path: Path, arrays: dict[str, Any], meta: dict[str, Any], wrappers: tuple[str, ...]
) -> Content:
    names = dict.fromkeys(array.dtype.name for array in arrays.values())
    dtypes = tuple(name for name in names if "float" in name)
    arrays = {key: _widened(array) for key, array in arrays.items()}
    needed, size = sum(array.nbytes for array in arrays.values()), path.stat().st_size
    if needed > max(ROOM * size, LEAST_ROOM):
        raise CheckpointError(
            f"{path} has {size:,} bytes and would unpack to {needed:,} bytes, which no network's "
            "does: it is damaged or hostile"
        )
    return Content(arrays, meta, dtypes, wrappers)


def _widened(array: Tensor) -> Tensor:
    half = "float" in array.dtype.name and array.dtype.itemsize < 4
    return array.astype(np.float32) if half else array


def write(
    path: str | os.PathLike,
    state: Mapping[str, Tensor],
    *,
    wrapper: str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Writes a state dict in its order; a file there is replaced only once the new one is whole.

    Args:
        path: .safetensors, or a torch file: .pth, .pt, .bin or .ckpt.
        state: key -> array.
        wrapper: entry of the torch file that holds the state dict; None for the bare dict.
        meta: plain values for the entry `meta` beside the wrapper.

    Raises:
        CheckpointError: unknown suffix, a wrapper around safetensors, which know none, tensors
            that the file cannot hold, no torch for a torch file, or a full or read-only disk.
    """
    path = Path(path)
    if path.suffix not in (*PICKLES, SAFETENSORS):
        raise CheckpointError(f"{path}: write to one of {', '.join((*PICKLES, SAFETENSORS))}")
    if wrapper and path.suffix == SAFETENSORS:
        raise CheckpointError(f"{path}: a safetensors file has no entry {wrapper!r}: use .pth")
    save = save_tensors if path.suffix == SAFETENSORS else _pickler(path, wrapper, meta)
    with replacing(path) as staging:
        save(state, staging)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file to write to, which takes the place of `path` if nothing goes wrong.

    Raises:
        CheckpointError: it cannot be written, such as on a full or read-only disk.
    """
    staging = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(f".new{path.suffix}", f".{path.name}-", path.parent)
        os.close(handle)
        staging = Path(name)
        yield staging
        staging.chmod(0o644)
        staging.replace(path)
    except (OSError, RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} cannot be written ({reason}); what was there before is untouched"
        ) from error
    finally:
        if staging:
            staging.unlink(missing_ok=True)


def _pickler(
    path: Path, wrapper: str | None, meta: Mapping[str, Any] | None
) -> Callable[[Mapping[str, Tensor], Path], None]:
    torch = _torch(path)

    def save(state: Mapping[str, Tensor], staging: Path) -> None:
        tensors = {
            key: torch.from_numpy(np.array(value, order="C")) for key, value in state.items()
        }
        beside = {"meta": dict(meta)} if meta else {}
        torch.save({**beside, wrapper: tensors} if wrapper else tensors, staging)

    return save


def _torch(path: Path) -> ModuleType:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise CheckpointError(f"{path} needs PyTorch: pip install 'flaxseg[torch]'") from error
    return torch
