"""What lies in a folder: the names of all files, looked at once; no file is opened."""

import dataclasses
import functools
import os
import pathlib
import unicodedata
from collections.abc import Iterator

from flaxseg.errors import DataError
from flaxseg.pictures.open import PHOTO_SUFFIXES

_CLUTTER = {"__macosx", "thumbs.db", "desktop.ini"}
"""What operating systems leave in folders, besides hidden files; in lower case."""


@dataclasses.dataclass(frozen=True)
class Survey:
    """The files below a folder, by their paths below it with slashes; hidden ones are left out.

    Attributes:
        root: the folder.
        pictures: files whose ending is a picture's, sorted.
        others: all other files, sorted.
    """

    root: pathlib.Path
    pictures: tuple[str, ...]
    others: tuple[str, ...]

    @functools.cached_property
    def folders(self) -> list[str]:
        """All folders with pictures in them or in a folder below, sorted; "" is the root."""
        parents = {picture.rpartition("/")[0] for picture in self.pictures}
        return sorted({folder for parent in parents for folder in upwards(parent)})

    @functools.cached_property
    def by_name(self) -> dict[str, list[str]]:
        """The pictures of each name, folders aside, accents composed."""
        found: dict[str, list[str]] = {}
        for picture in self.pictures:
            name = unicodedata.normalize("NFC", picture.rpartition("/")[2])
            found.setdefault(name, []).append(picture)
        return found

    def below(self, folder: str) -> list[str]:
        """The pictures in a folder and in those below it."""
        return [picture for picture in self.pictures if is_below(picture, folder)]

    def directly_in(self, folder: str) -> list[str]:
        """The other files in a folder itself."""
        return [file for file in self.others if file.rpartition("/")[0] == folder]


def survey(root: pathlib.Path) -> Survey:
    """Looks through a folder and those below it, links to folders included.

    Raises:
        DataError: the folder cannot be listed, or a name in it is no UTF-8.
    """
    pictures, others = [], []
    for name in _walk(root):
        check_name(root / name)
        (pictures if is_picture(name) else others).append(name)
    return Survey(root, tuple(sorted(pictures)), tuple(sorted(others)))


def is_picture(name: str) -> bool:
    """Whether a file counts as a picture, by its ending; training and prediction have one rule."""
    return pathlib.PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES


def without_ending(name: str) -> str:
    """A picture's name without its ending; other names, such as "scene.1", as they are."""
    return name[: name.rindex(".")] if is_picture(name) else name


def is_below(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies below it; everything lies below ""."""
    return not folder or path == folder or path.startswith(f"{folder}/")


def upwards(folder: str) -> Iterator[str]:
    """A folder and all that it lies in, the root "" last."""
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]
    yield ""


def _walk(root: pathlib.Path) -> Iterator[str]:
    """The paths of all files below `root`, and of folders that are called like pictures."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); mend its rights")

    seen = set()
    for place, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        # A folder called like a picture stays a file that cannot be read, which its reader tells.
        odd = [name for name in folders if is_picture(name)]
        folders[:] = [name for name in folders if _is_shown(name) and name not in odd]
        below = pathlib.Path(place).relative_to(root)
        yield from ((below / name).as_posix() for name in (*files, *odd) if _is_shown(name))


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _CLUTTER


def check_name(path: pathlib.Path) -> None:
    """Raises `DataError` unless a file's name is UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DataError(f"{ascii(str(path))}: the name is not UTF-8; rename the file") from None
