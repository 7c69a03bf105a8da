"""Where a checkpoint lies: one file, several with an index, a Hugging Face folder or its hub."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from convert.io import Content, is_safetensors, read_content
from flaxseg.errors import CheckpointError
from flaxseg.model_dir import Tensor

HUB = "hf:"
"""In front of a repository's name on the Hugging Face hub: hf:owner/name[@revision]."""

HUB_FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")
HUB_PICKLES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Of a Hugging Face folder, the best first."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What was found at a place.

    Attributes:
        source: the place, as the user named it.
        content: tensors and what was noted beside them.
        config: the `config.json` of a Hugging Face folder; empty if there is none.
        preprocessor: its `preprocessor_config.json`, likewise.
        files: what was read of it, see `files_of`.
    """

    source: str
    content: Content
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    files: tuple[Path, ...] = ()

    @property
    def arrays(self) -> dict[str, Tensor]:
        """The state dict, in the file's order, each tensor read when it is asked for."""
        return self.content.arrays


class Place(NamedTuple):
    """Where a checkpoint lies on this machine.

    Attributes:
        name: the place, as the user named it.
        path: the file or folder; of a repository of the hub, its folder in the hub's own cache.
    """

    name: str
    path: Path


def locate(source: str | os.PathLike | Place) -> Place:
    """Finds what a user has named, and fetches it from the hub where it lies there.

    Args:
        source: a file, a folder, or "hf:owner/name[@revision]" for a repository of the hub, which
            comes from the local cache where it is there already; a place is returned as it is.

    Raises:
        CheckpointError: it cannot be fetched.
    """
    if isinstance(source, Place):
        return source
    name = os.fspath(source)
    return Place(name, _download(name) if name.startswith(HUB) else Path(name))


def open_checkpoint(source: str | os.PathLike | Place, *, weights: str | None = None) -> Checkpoint:
    """Reads a checkpoint from wherever it lies.

    Args:
        source: a file that `convert.read` takes, an index of several files (`*.index.json`), a
            Hugging Face folder, a repository of the hub as `locate` takes it, or what it gave.
        weights: name of the set of tensors, where a file holds several.

    Raises:
        CheckpointError: nothing is there, or it cannot be read.
    """
    name, path = locate(source)
    file = _weights_in(path, name) if path.is_dir() else path
    content = _read_file(file, weights)
    files = tuple(files_of(Place(name, path)))
    if file.name not in FOLDER_FILES:
        # What lies beside it may belong to anything.
        return Checkpoint(name, content, {}, {}, files)
    config, preprocessor = (
        _read_config(file.with_name(beside)) for beside in (CONFIG_FILE, PREPROCESSOR_FILE)
    )
    return Checkpoint(name, content, config, preprocessor, files)


def holds_weights(folder: Path) -> bool:
    """Whether a folder has one of the files that a Hugging Face folder keeps its weights in."""
    return any((folder / candidate).is_file() for candidate in FOLDER_FILES)


def files_of(place: Place) -> list[Path]:
    """The files that `open_checkpoint` reads, the one with the weights or their index first.

    Raises:
        CheckpointError: a folder without weights, or a damaged index.
    """
    name, path = place
    file = _weights_in(path, name) if path.is_dir() else path
    shards = dict.fromkeys(_shards(file).values())
    beside = (CONFIG_FILE, PREPROCESSOR_FILE) if file.name in FOLDER_FILES else ()
    files = (file.with_name(other) for other in (*shards, *beside))
    return [file, *(other for other in files if other.is_file())]


def _weights_in(folder: Path, name: str) -> Path:
    for candidate in FOLDER_FILES:
        if (folder / candidate).is_file():
            return folder / candidate
    raise CheckpointError(
        f"{name} is a folder without weights: expected one of {', '.join(FOLDER_FILES)} in it"
    )


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values = _read_json(path)
    return values if isinstance(values, dict) else {}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): fetch it again") from None


def _read_file(path: Path, weights: str | None) -> Content:
    shards = _shards(path)
    return _join_shards(path, shards) if shards else read_content(path, weights=weights)


def _shards(path: Path) -> dict[str, str]:
    """Key -> name of the file beside it that has it, of an index; empty if it is none."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist or is no file")
    with open(path, "rb") as file:
        start = file.read(9)
    if not start.lstrip().startswith(b"{") or is_safetensors(start, path.stat().st_size):
        return {}
    index = _read_json(path)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if (
        not shards
        or not isinstance(shards, dict)
        or not all(isinstance(s, str) for s in shards.values())
    ):
        raise CheckpointError(
            f"{path} is JSON text and has no entry 'weight_map' that names a file for each key: "
            "give the file with the weights"
        )
    outside = [name for name in shards.values() if Path(name).name != name]
    if outside:
        raise CheckpointError(f"{path} names {outside[0]}, which is no file beside it")
    return shards


def _join_shards(index: Path, shards: dict[str, str]) -> Content:
    """The tensors of all files, each from the file that the index names for it."""
    contents = {name: read_content(index.parent / name) for name in dict.fromkeys(shards.values())}
    missing = [key for key, name in shards.items() if key not in contents[name].arrays]
    if missing:
        listed = ", ".join(f"{key} ({shards[key]})" for key in missing[:5])
        raise CheckpointError(f"{index} names {len(missing)} tensors that are not there: {listed}")
    arrays = {key: contents[name].arrays[key] for key, name in shards.items()}
    dtypes = dict.fromkeys(name for content in contents.values() for name in content.dtypes)
    return Content(arrays, {}, tuple(dtypes), ())


def _download(source: str) -> Path:
    """The folder of a repository in the hub's local cache."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{source} needs huggingface_hub: pip install 'flaxseg[hub]'"
        ) from error
    repository, _, revision = source.removeprefix(HUB).partition("@")
    options: dict[str, Any] = {"revision": revision or None}
    try:
        folder = Path(
            huggingface_hub.snapshot_download(repository, allow_patterns=list(HUB_FILES), **options)
        )
        if not any(folder.glob("*.safetensors")):
            patterns = [*HUB_PICKLES, CONFIG_FILE]
            folder = Path(
                huggingface_hub.snapshot_download(repository, allow_patterns=patterns, **options)
            )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{source} cannot be fetched ({reason}): check the name, the network, and `hf auth "
            "login` where the repository is private"
        ) from None
    return folder
