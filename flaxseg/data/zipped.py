"""A data set in the zip that a labelling tool gives: unpacked once, then read like any folder."""

import pathlib
import shutil
import zipfile

from flaxseg.data.archives import Archive, unpack
from flaxseg.data.cache import derived, fingerprint, forget_older, prepare_once
from flaxseg.data.survey import is_picture
from flaxseg.errors import DataError

_SPARE = 2**30  # bytes that stay free


def find_zip(root: pathlib.Path) -> pathlib.Path | None:
    """The zip that `root` is, or the only one that it holds beside nothing but texts.

    Args:
        root: a file or folder.

    Raises:
        DataError: a folder of several zips and nothing else, or a file that is no zip.
    """
    if root.is_file():
        if not zipfile.is_zipfile(root):
            raise DataError(f"{root}: is neither a folder nor a zip file; give one of them")
        return root
    if not root.is_dir():
        raise DataError(f"{root}: no such folder or zip file; give --data-dir one")
    entries = [path for path in root.iterdir() if not path.name.startswith(".")]
    zips = sorted(path for path in entries if path.suffix.lower() == ".zip")
    data = (path for path in entries if is_picture(path.name) or path.is_dir())
    if not zips or any(path.name != "__MACOSX" for path in data):
        return None
    if len(zips) > 1:
        names = ", ".join(path.name for path in zips[:4])
        raise DataError(f"{root}: holds {len(zips)} zip files ({names}); name one of them")
    return zips[0]


def unzipped(path: pathlib.Path, cache: pathlib.Path) -> pathlib.Path:
    """The folder in the cache with the content of a zip, unpacked unless that has been done.

    Raises:
        DataError: the zip is damaged, has members that point out of their folder, or holds more
            than fits on the disk.
    """
    directory = derived(cache, "zips", path, fingerprint(path.parent, [path], "1"))

    def fill(target: pathlib.Path) -> None:
        _check_space(path, target)
        unpack({Archive(path.name, r".*"): path}, target)

    prepare_once(directory, fill)
    forget_older(directory, path)
    return directory


def _check_space(path: pathlib.Path, target: pathlib.Path) -> None:
    """Raises unless there is space: sizes are declared, and no more than that is ever unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        return  # unpacking it tells
    free = shutil.disk_usage(target).free
    if size + _SPARE > free:
        raise DataError(
            f"{path}: holds {size / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free in "
            f"{target.parent}, of which 1 stays free; set FLAXSEG_CACHE to a folder with space, or "
            "unpack it"
        )
