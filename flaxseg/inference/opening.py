"""Where the models are that commands name, and what a training run tells of its own."""

import functools
import json
import os
from pathlib import Path
from typing import Any

from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.exported import files_of, kind_of, read_about
from flaxseg.model_dir import CONFIG_FILE, WEIGHTS_FILE

Pathlike = str | os.PathLike[str]

MODEL_FOLDER = "model"
"""Where a training work directory keeps its model directory."""

_MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE)


def resolve_model_dir(path: Pathlike) -> Path:
    """The model directory that a user's path means.

    Args:
        path: a model directory (config.json and model.safetensors), or the work directory of a
            training run, whose model directory is `model`; a file of `flaxseg export` is returned
            as it is.

    Raises:
        CheckpointError: there is neither, with what was found instead.
    """
    path = Path(path)
    if kind_of(path):
        return path
    for candidate in (path / MODEL_FOLDER, path):
        if all((candidate / name).is_file() for name in _MODEL_FILES):
            return candidate
    raise CheckpointError(
        f"{path} is neither a model directory, which holds {' and '.join(_MODEL_FILES)}, nor the "
        f"work directory of a training run, which holds {MODEL_FOLDER}/ with them, nor a file of "
        f"flaxseg export: found {_found(path)}"
    )


def model_files(model: Path) -> list[Path]:
    """The files of a model that `resolve_model_dir` found."""
    return files_of(model) if kind_of(model) else [model / name for name in _MODEL_FILES]


def run_settings(path: Path) -> dict[str, Any]:
    """The training configuration beside a model directory, or what an exported file tells of it;
    empty if there is none."""
    if kind_of(path):
        return _exported_view(path, path.stat().st_mtime_ns)
    file = path / CONFIG_FILE
    if not (path / MODEL_FOLDER).is_dir() or not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is not readable JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} is not a training configuration: it must hold a JSON object")
    return _settings(values)


@functools.lru_cache(maxsize=8)
def _exported_view(path: Path, changed: int) -> dict[str, Any]:
    """Kept, as an ONNX file tells nothing before its whole program is loaded."""
    del changed
    return _settings(read_about(path).view)


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if v is not None}


def _found(path: Path) -> str:
    if path.is_file():
        return "a file"
    if not path.exists():
        return "nothing of that name"
    names = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    return ", ".join(names[:8]) + ", …" * (len(names) > 8) if names else "an empty folder"
