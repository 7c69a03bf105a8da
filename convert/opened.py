"""What a user names as a model, as a model directory: whatever else it is gets imported once.

Commands know model directories and work directories of training runs alone. A checkpoint of
another kind, wherever it lies, is imported into flaxseg's cache, where it is found again by its
content; so its results are those of an import by hand, and the second time needs no network.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import flaxseg
from convert.load import read_native
from convert.sources import HUB, Place, files_of, holds_weights, locate
from flaxseg.caches import IMPORTED, cache_root
from flaxseg.data.cache import fingerprint, prepare_once
from flaxseg.errors import CheckpointError
from flaxseg.exported import kind_of
from flaxseg.files import replace_text, sha256_of
from flaxseg.inference.opening import MODEL_FOLDER
from flaxseg.model_dir import CONFIG_FILE, WEIGHTS_FILE, is_model_directory, write_files

NOTE_FILE = "import.json"
"""Beside an imported model directory: what the checkpoint was recognised as, and the digests of
the files."""

MORE = "flaxseg convert import --verify compares it with PyTorch, and takes every flag named here"


def as_directory(source: str | os.PathLike, *, say: Callable[[str], None] | None = None) -> Path:
    """The directory of ours that a user's MODEL means.

    Args:
        source: a model directory, the work directory of a training run, or a file of `flaxseg
            export`, which are returned as they are; any checkpoint that `convert.load` takes,
            which is imported into the cache unless its content is there already; or
            "hf:owner/name[@revision]" with one of these. PyTorch is not needed.
        say: called with one line about a checkpoint: what it was recognised as, and what is
            assumed.

    Raises:
        CheckpointError: nothing is there; or a checkpoint cannot be read, or does not tell alone
            what it is: then the flag of `flaxseg convert import` that says it is named.
        DataError: the cache cannot be written.
    """
    place = locate(source)
    if _is_ours(place):
        return place.path
    entry = cache_root() / IMPORTED / _key(place)
    prepare_once(entry, lambda folder: _import(place, folder), is_whole=_is_whole)
    if say is not None:
        say(f"{place.name}: {json.loads((entry / NOTE_FILE).read_text('utf-8'))['recognised']}")
    return entry / MODEL_FOLDER


def _is_ours(place: Place) -> bool:
    """Whether it is a directory of ours, or else a folder of which a command says what it lacks."""
    path = place.path
    if not path.exists():
        raise CheckpointError(
            f"{place.name} does not exist: give the work directory of a training run, a model "
            f"directory, a checkpoint, an exported file, or {HUB}owner/name for a repository of "
            "the Hugging Face hub"
        )
    if kind_of(path) or is_model_directory(path) or is_model_directory(path / MODEL_FOLDER):
        return True
    return path.is_dir() and not holds_weights(path) and not place.name.startswith(HUB)


def _key(place: Place) -> str:
    """A name for the content of a checkpoint, and for the code that imports it."""
    files = files_of(place)
    digests = [sha256_of(file) for file in files]
    # The name of a single file tells nothing, those of several tell their parts.
    names = [file.name for file in files] if len(files) > 1 else []
    code = Path(__file__).parent
    version = fingerprint(code, code.rglob("*.py"), flaxseg.__version__)
    return hashlib.sha256("\n".join([version, *names, *digests]).encode()).hexdigest()[:32]


def _import(place: Place, folder: Path) -> None:
    """Fills a folder of the cache."""
    checkpoint = read_native(place)
    header, arrays = checkpoint.stored()
    model = folder / MODEL_FOLDER
    write_files(model, header, arrays)
    note = {
        "recognised": f"{checkpoint.report.in_one_line()}; {MORE}",
        "sha256": {name: sha256_of(model / name) for name in (CONFIG_FILE, WEIGHTS_FILE)},
    }
    replace_text(folder / NOTE_FILE, json.dumps(note, indent=2) + "\n")


def _is_whole(entry: Path) -> bool:
    """Whether a folder of the cache holds what was written there, to the bit."""
    try:
        digests = json.loads((entry / NOTE_FILE).read_text("utf-8"))["sha256"]
        return all(
            digests[name] == sha256_of(entry / MODEL_FOLDER / name)
            for name in (CONFIG_FILE, WEIGHTS_FILE)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
