"""A folder for any file server: the page of `flaxseg demo`, whose visitors' browsers segment."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from flaxseg.demo.pages import Shown, page_files
from flaxseg.errors import ConfigError, DataError
from flaxseg.export.runtime import runtime_files
from flaxseg.model_dir import Header
from flaxseg.models import Config

T = TypeVar("T")

MODEL_FILE = "model.onnx"
RUNTIME_FOLDER = "ort"
LARGEST_SIDE = 640
"""Pixels of a longer side that are seen: browsers compute on one core, in WebAssembly."""

_SMALLEST_SIDE = 64  # fewer pixels some networks refuse
_MAX_BYTES, _MAX_PIXELS = 64 * 2**20, 50_000_000
_WHERE = "Pictures do not leave this browser: it segments them itself."


def write_site(
    folder: Path,
    header: Header,
    title: str,
    write_model: Callable[[Path], T],
    *,
    runtime: Path | None = None,
) -> T:
    """Writes the folder, which appears complete or not at all.

    Args:
        folder: to be made; it may exist if it is empty.
        header: of the model.
        title: what the page calls the model.
        write_model: writes an .onnx file of it, and returns how far it agrees.
        runtime: onnxruntime-web's package; None: from the cache, or else from npm's registry.

    Returns:
        What `write_model` did.

    Raises:
        FlaxsegError: the runtime cannot be had, the folder not be written, or the model not be
            exported.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is no empty folder: choose another name")
    more = {
        "file": MODEL_FILE,
        "preprocess": header.preprocess.to_json(),
        "size": size_rule(header.config),
    }
    shown = Shown(header.name, title, header.labels, more)
    limits = {"max_bytes": _MAX_BYTES, "max_pixels": _MAX_PIXELS}
    too_large = f"has more than the {_MAX_BYTES:,} bytes that are taken; make it smaller"
    files = page_files("browser", [shown], _WHERE, **limits, too_large=too_large)
    files |= {f"{RUNTIME_FOLDER}/{n}": content for n, content in runtime_files(runtime).items()}
    try:
        with tempfile.TemporaryDirectory(prefix=".site-", dir=folder.absolute().parent) as place:
            site = Path(place) / "site"
            (site / RUNTIME_FOLDER).mkdir(parents=True)
            _write_all(site, files)
            agreement = write_model(site / MODEL_FILE)
            shutil.copytree(site, folder, dirs_exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error
    return agreement


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def size_rule(config: Config) -> dict[str, Any]:
    """How the page finds the size at which the network sees a picture; see worker.js."""
    return {
        "fixed": config.fixed_size,
        "multiple": config.size_divisor,
        "square": config.square,
        "smallest": _SMALLEST_SIDE,
        "largest": LARGEST_SIDE,
    }
