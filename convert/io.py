"""The one place that reads and writes the peers' files.

torch is imported when a pickle is read or written; safetensors files without bfloat16 need none.
"""

import os
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

from flaxseg.errors import CheckpointError

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
SAFETENSORS = ".safetensors"
WRAPPERS = ("state_dict", "model")
"""Entries under which training scripts keep the state dict beside epoch and optimiser."""

PARALLEL_PREFIX = "module."
"""What torch's DataParallel puts before every key."""


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The state dict of a checkpoint file as arrays, in the file's order.

    Wrappers and the prefix of DataParallel are taken off; float16 and bfloat16 become float32,
    which is exact.

    Args:
        path: a torch file (.pth, .pt, .bin, .ckpt) or .safetensors.

    Raises:
        CheckpointError: the file is missing, broken, needs code execution, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist or is no file")
    if path.suffix == SAFETENSORS:
        state = _read_safetensors(path)
    elif path.suffix in PICKLES:
        state = _read_pickle(path)
    else:
        raise CheckpointError(
            f"{path} has the suffix {path.suffix!r}, expected one of "
            f"{', '.join((*PICKLES, SAFETENSORS))}"
        )
    return {key: _widen(value) for key, value in _without_parallel_prefix(state).items()}


def write(
    path: str | os.PathLike, state: Mapping[str, np.ndarray], *, wrapper: str | None = None
) -> None:
    """Writes a state dict in its order; a file there is replaced only once the new one is whole.

    Args:
        path: .safetensors, or a torch file by any suffix that `read` takes.
        state: key -> array.
        wrapper: entry of the torch file that holds the state dict; None for the bare dict.

    Raises:
        CheckpointError: unknown suffix, or a wrapper around safetensors, which know none.
    """
    path = Path(path)
    if path.suffix not in (*PICKLES, SAFETENSORS):
        raise CheckpointError(f"{path}: write to one of {', '.join((*PICKLES, SAFETENSORS))}")
    if wrapper and path.suffix == SAFETENSORS:
        raise CheckpointError(f"{path}: a safetensors file has no entry {wrapper!r}: use .pth")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, staging = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    try:
        _write_staging(Path(staging), path.suffix, state, wrapper)
        os.chmod(staging, 0o644)
        os.replace(staging, path)
    finally:
        Path(staging).unlink(missing_ok=True)


def _write_staging(
    staging: Path, suffix: str, state: Mapping[str, np.ndarray], wrapper: str | None
) -> None:
    if suffix == SAFETENSORS:
        arrays = {key: np.ascontiguousarray(value) for key, value in state.items()}
        save_file(arrays, staging, metadata={"format": "pt"})
        return
    import torch

    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    torch.save({wrapper: tensors} if wrapper else tensors, staging)


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return load_file(path)
    except KeyError:  # a dtype that numpy lacks
        from safetensors.torch import load_file as load_tensors

        return load_tensors(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no readable safetensors file ({error})") from None


def _read_pickle(path: Path) -> dict[str, Any]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # hostile or cut bytes make the unpickler raise anything
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path} cannot be read without running code from the file, which is refused: "
                "where you trust it, load it once with its own program and save model.state_dict()"
            ) from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} is damaged or no torch file ({reason})") from error
    return _unwrap(path, content)


def _unwrap(path: Path, content: Any) -> dict[str, Any]:
    import torch

    while isinstance(content, dict):
        inner = [content[w] for w in WRAPPERS if isinstance(content.get(w), dict)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a state dict")
    odd = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if odd or not content:
        listed = f"entries that are no tensors: {', '.join(odd[:5])}" if odd else "no tensors"
        raise CheckpointError(
            f"{path} holds {listed}; expected a state dict, bare or under "
            f"{' or '.join(map(repr, WRAPPERS))}"
        )
    return content


def _without_parallel_prefix(state: dict[str, Any]) -> dict[str, Any]:
    if not all(key.startswith(PARALLEL_PREFIX) for key in state):
        return state
    return {key.removeprefix(PARALLEL_PREFIX): value for key, value in state.items()}


def _widen(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        half = value.is_floating_point() and value.itemsize < 4
        return (value.float() if half else value).numpy()
    half = value.dtype.name in ("float16", "bfloat16")
    return value.astype(np.float32) if half else value
