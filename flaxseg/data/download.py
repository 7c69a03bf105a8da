"""Downloads published archives with TFDS's download manager, which needs no TensorFlow for it."""

import contextlib
import json
import os
import pathlib
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence

from flaxseg.data.archives import Archive
from flaxseg.data.lock import one_at_a_time
from flaxseg.errors import DataError
from flaxseg.files import replace_text

_INDEX = "archives.json"
_ANSWER_SECONDS = 20


def download(
    name: str, archives: Sequence[Archive], folder: pathlib.Path
) -> dict[Archive, pathlib.Path]:
    """Downloads archives, unless that has been done; of several processes one does.

    Args:
        name: of the data set.
        archives: what to get; all have an address.
        folder: where downloads are kept.

    Returns:
        Where each archive lies.

    Raises:
        DataError: no answer, a file of another checksum than was published, or nowhere to write.
    """
    found = _downloaded(archives, folder / name)
    if found is not None:
        return found
    with one_at_a_time(folder / name):
        return _downloaded(archives, folder / name) or _download(name, archives, folder)


def _downloaded(
    archives: Sequence[Archive], folder: pathlib.Path
) -> dict[Archive, pathlib.Path] | None:
    """Where the archives lie, if all of them do."""
    known = _read_index(folder / _INDEX)
    found = {archive: folder / known.get(archive.url, "") for archive in archives}
    return found if all(path.is_file() for path in found.values()) else None


def _download(
    name: str, archives: Sequence[Archive], folder: pathlib.Path
) -> dict[Archive, pathlib.Path]:
    try:
        _announce(name, archives, folder)
        found = _fetch(name, archives, folder)
        index = {archive.url: path.name for archive, path in found.items()}
        replace_text(folder / name / _INDEX, json.dumps(index))
    except Exception as error:  # those of TFDS, requests and urllib have no common base
        files = " and ".join(archive.file for archive in archives)
        urls = " and ".join(archive.url for archive in archives)
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name}: {urls} cannot be downloaded ({reason}); get {files} in another way and give "
            "--data-dir their folder"
        ) from error
    return found


def _fetch(
    name: str, archives: Sequence[Archive], folder: pathlib.Path
) -> dict[Archive, pathlib.Path]:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.checksums import UrlInfo
    from tensorflow_datasets.core.utils import Size

    infos = {
        archive.url: UrlInfo(
            size=Size(archive.size), checksum=archive.sha256, filename=archive.file
        )
        for archive in archives
        if archive.sha256
    }
    manager = tfds.download.DownloadManager(
        download_dir=os.fspath(folder), dataset_name=name, url_infos=infos
    )
    paths = manager.download({archive.file: archive.url for archive in archives})
    return {archive: pathlib.Path(paths[archive.file]) for archive in archives}


def _announce(name: str, archives: Sequence[Archive], folder: pathlib.Path) -> None:
    """Says what is going to be downloaded; raises if nobody answers: TFDS would try for minutes."""
    for archive in archives:
        request = urllib.request.Request(archive.url, method="HEAD")
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=_ANSWER_SECONDS).close()
    total = sum(archive.size for archive in archives)
    amount = f" ({total / 2**20:.0f} MiB)" if total else ""
    files = " and ".join(archive.file for archive in archives)
    print(f"{name}: downloading {files}{amount} to {folder / name}", file=sys.stderr)


def _read_index(path: pathlib.Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}
