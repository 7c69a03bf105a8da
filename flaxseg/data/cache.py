"""Folders in the cache, filled once and never half: what was found of data, or made of them."""

import contextlib
import hashlib
import math
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable

from flaxseg.caches import CACHE_VARIABLE
from flaxseg.caches import cache_root as cache_root
from flaxseg.data.lock import one_at_a_time
from flaxseg.errors import DataError

_STALE_SECONDS = 24 * 3600


def fingerprint(root: pathlib.Path, files: Iterable[pathlib.Path], version: str) -> str:
    """A name for the content of files by their names, sizes and modification times.

    Args:
        root: folder that the names are relative to.
        files: files below `root`, or derived from them elsewhere.
        version: of the code that reads them.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256(version.encode())
    for path in sorted(files):
        name = path.relative_to(root) if path.is_relative_to(root) else path
        digest.update(f"\n{name.as_posix()}".encode())
        with contextlib.suppress(OSError):  # a dead link, which its reader will tell of
            status = path.stat()
            digest.update(f"\t{status.st_size}\t{status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def prepare_once(
    directory: pathlib.Path,
    prepare: Callable[[pathlib.Path], None],
    *,
    is_whole: Callable[[pathlib.Path], bool] = pathlib.Path.is_dir,
) -> pathlib.Path:
    """Fills a directory, unless that has been done.

    `prepare` writes into a temporary neighbour that is renamed when complete, so a killed run
    leaves nothing that a later one would take for prepared data. Of several processes one prepares
    and the others wait; where nothing can be locked all of them prepare, and one wins.

    Args:
        directory: what to fill.
        prepare: writes the content into the empty directory it is given.
        is_whole: whether the directory is complete, as its existence alone means by default;
            one that is not is filled anew.

    Returns:
        `directory`.

    Raises:
        DataError: the cache cannot be written.
    """
    if is_whole(directory):
        return directory
    try:
        with one_at_a_time(directory):
            if not is_whole(directory):
                shutil.rmtree(directory, ignore_errors=True)
                _fill(directory, prepare)
    except OSError as error:
        raise DataError(
            f"{directory}: cannot be written ({error.strerror or error}); set {CACHE_VARIABLE} "
            "to a folder with space"
        ) from error
    return directory


def derived(cache: pathlib.Path, kind: str, source: pathlib.Path, key: str) -> pathlib.Path:
    """Where in the cache that lies which is made of a file or folder.

    Args:
        cache: the cache.
        kind: what is made, such as "coco".
        source: what it is made of.
        key: of the source's content.
    """
    return cache / kind / f"{_source_name(source)}-{key}"


def forget_older(directory: pathlib.Path, source: pathlib.Path) -> None:
    """Removes what was made of earlier contents of a source, but for the newest of them.

    Each change of a source makes a new directory. The one before stays because a run that began
    with it may go on.

    Args:
        directory: what `derived` gave, just filled or found.
        source: what it is made of.
    """
    with contextlib.suppress(OSError):
        os.utime(directory)
    siblings = [
        path
        for path in directory.parent.iterdir()
        if path.name.startswith(f"{_source_name(source)}-") and path != directory and path.is_dir()
    ]
    for path in sorted(siblings, key=_age)[1:]:
        shutil.rmtree(path, ignore_errors=True)


def _source_name(source: pathlib.Path) -> str:
    place = source.absolute()
    return f"{place.stem[:40]}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:8]}"


def _age(path: pathlib.Path) -> float:
    """Seconds since a directory was last used."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:  # gone meanwhile
        return math.inf


def _fill(directory: pathlib.Path, prepare: Callable[[pathlib.Path], None]) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(directory)
    temporary = pathlib.Path(tempfile.mkdtemp(dir=directory.parent, prefix=_prefix(directory)))
    try:
        prepare(temporary)
        with contextlib.suppress(FileExistsError):
            _rename(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _prefix(directory: pathlib.Path) -> str:
    return f".{directory.name}."


def _rename(temporary: pathlib.Path, directory: pathlib.Path) -> None:
    try:
        temporary.rename(directory)
    except OSError:
        if not directory.is_dir():
            raise
        raise FileExistsError(directory) from None


def _remove_stale(directory: pathlib.Path) -> None:
    """Removes what runs that were killed left behind, but not what another run is writing."""
    for path in directory.parent.glob(f"{_prefix(directory)}*"):
        with contextlib.suppress(OSError):
            # The lock's file has such a name, too, and is not ours to remove.
            if path.is_dir() and time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path)
