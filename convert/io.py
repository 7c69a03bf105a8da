"""The one place that reads and writes the peers' files.

torch is imported when a pickle is read or written; safetensors files need it for bfloat16 alone.
"""

import contextlib
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

from flaxseg.errors import CheckpointError

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
SAFETENSORS = ".safetensors"
OPTIMIZER_KEYS = {"optimizer", "param_groups", "optimizer_state_dict"}

WRAPPERS = ("state_dict", "model")
"""Entries under which training scripts keep the state dict beside epoch and optimiser."""

PARALLEL_PREFIX = "module."
"""What torch's DataParallel puts before every key."""


class Content(NamedTuple):
    """What a checkpoint file holds.

    Attributes:
        arrays: the state dict, in the file's order.
        meta: what a training script has noted beside it, such as class names.
        dtypes: of the floating-point tensors in the file, by name.
        wrappers: what stood around the state dict, entries and prefixes, from the outside.
    """

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]
    dtypes: tuple[str, ...]
    wrappers: tuple[str, ...]


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The state dict of a checkpoint file as arrays, in the file's order.

    Wrappers and the prefix of DataParallel are taken off; float16 and bfloat16 become float32,
    which is exact.

    Args:
        path: a torch file (.pth, .pt, .bin, .ckpt) or .safetensors.

    Raises:
        CheckpointError: the file is missing, broken, needs code execution, or holds no tensors;
            or torch is needed and not installed.
    """
    return read_content(path).arrays


def read_content(path: str | os.PathLike) -> Content:
    """Like `read`, with what stands in the file besides the tensors."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist or is no file")
    wrappers, meta = [], {}
    if path.suffix == SAFETENSORS:
        state = _read_safetensors(path)
    elif path.suffix in PICKLES:
        state, meta = _unwrap(path, _read_pickle(path), wrappers)
    else:
        raise CheckpointError(
            f"{path} has the suffix {path.suffix!r}, expected one of "
            f"{', '.join((*PICKLES, SAFETENSORS))}"
        )
    if all(key.startswith(PARALLEL_PREFIX) for key in state):
        wrappers.append(PARALLEL_PREFIX)
        state = {key.removeprefix(PARALLEL_PREFIX): value for key, value in state.items()}
    names = dict.fromkeys(str(value.dtype).removeprefix("torch.") for value in state.values())
    dtypes = tuple(name for name in names if "float" in name)
    arrays = {key: _widen(value) for key, value in state.items()}
    return Content(arrays, meta, dtypes, tuple(wrappers))


def write(
    path: str | os.PathLike,
    state: Mapping[str, np.ndarray],
    *,
    wrapper: str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Writes a state dict in its order; a file there is replaced only once the new one is whole.

    Args:
        path: .safetensors, or a torch file by any suffix that `read` takes.
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
    save = _save_safetensors if path.suffix == SAFETENSORS else _pickler(path, wrapper, meta)
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
    except (OSError, RuntimeError, TypeError, safetensors.SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} cannot be written ({reason}); what was there before is untouched"
        ) from error
    finally:
        if staging:
            staging.unlink(missing_ok=True)


def _save_safetensors(state: Mapping[str, np.ndarray], path: Path) -> None:
    arrays = {key: np.asarray(value, order="C") for key, value in state.items()}
    save_file(arrays, path, metadata={"format": "pt"})


def _pickler(
    path: Path, wrapper: str | None, meta: Mapping[str, Any] | None
) -> Callable[[Mapping[str, np.ndarray], Path], None]:
    torch = _torch(path)

    def save(state: Mapping[str, np.ndarray], staging: Path) -> None:
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


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return load_file(path)
    except KeyError:  # a dtype that numpy lacks
        _torch(path)
        from safetensors.torch import load_file as load_tensors

        return load_tensors(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no readable safetensors file ({error})") from None


def _read_pickle(path: Path) -> Any:
    torch = _torch(path)
    _refuse_bombs(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # hostile or cut bytes make the unpickler raise anything
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path} cannot be read without running code from the file, which is refused: "
                "where you trust it, load it once with its own program and save model.state_dict()"
            ) from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} is damaged or no torch file ({reason})") from error


def _refuse_bombs(path: Path) -> None:
    """torch stores tensors as they are: a file that unpacks to more is none of torch's."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except Exception as error:  # what a damaged directory of entries makes zipfile raise differs
        raise CheckpointError(f"{path} is damaged or no torch file ({error})") from error
    if unpacked > 2 * path.stat().st_size:
        raise CheckpointError(
            f"{path} is compressed and would unpack to {unpacked:,} bytes, which torch never "
            "writes: it is damaged or hostile"
        )


def _unwrap(path: Path, content: Any, wrappers: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The innermost state dict, and what was noted outside; the entries on the way are listed."""
    meta: dict[str, Any] = {}
    while isinstance(content, dict):
        inner = [w for w in WRAPPERS if isinstance(content.get(w), dict)]
        if not inner:
            break
        meta |= content["meta"] if isinstance(content.get("meta"), dict) else {}
        wrappers.append(inner[0])
        content = content[inner[0]]
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a state dict")
    tensor_type = _torch(path).Tensor
    odd = [str(key) for key, value in content.items() if not isinstance(value, tensor_type)]
    if not odd and content:
        return {str(key): value for key, value in content.items()}, meta
    if OPTIMIZER_KEYS & content.keys():
        raise CheckpointError(
            f"{path} holds the state of an optimiser and no weights: give the file of the model"
        )
    listed = f"entries that are no tensors: {', '.join(odd[:5])}" if odd else "no tensors"
    raise CheckpointError(
        f"{path} holds {listed}; expected a state dict, bare or under "
        f"{' or '.join(map(repr, WRAPPERS))}"
    )


def _widen(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        half = value.is_floating_point() and value.itemsize < 4
        return (value.float() if half else value).detach().numpy()
    half = value.dtype.name in ("float16", "bfloat16")
    return value.astype(np.float32) if half else value
