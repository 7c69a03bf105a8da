"""What `flaxseg predict` segments, and what its outputs are called."""

import collections
import glob
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from flaxseg.errors import DataError
from flaxseg.pictures.open import PHOTO_SUFFIXES, is_photo_name, read_bytes
from flaxseg.video import SUFFIXES as VIDEO_SUFFIXES
from flaxseg.video import is_video_name

STDIN = "-"
"""Stands for one picture from standard input."""

_LIST = "@"
_PATTERN = "*?["
_SHOWN = 5


class Input(NamedTuple):
    """A photo or a video to segment.

    Attributes:
        path: its file.
        folder: the folder that was given and in which it was found; None if the file was given.
        stdin: it comes from standard input, and the path is but its name.
        video: it is a video.
    """

    path: Path
    folder: Path | None = None
    stdin: bool = False
    video: bool = False

    @property
    def below(self) -> Path:
        """Its path below the folder that was given, or its name."""
        return self.path.relative_to(self.folder) if self.folder else Path(self.path.name)

    def read(self) -> bytes:
        """The bytes of the file.

        Raises:
            DataError: it cannot be read, or is empty.
        """
        return sys.stdin.buffer.read() if self.stdin else read_bytes(self.path)

    def state(self) -> tuple[int, int] | None:
        """Bytes and time of change: another one tells another content. None: there is none."""
        if self.stdin:
            return None
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns


class Inputs(NamedTuple):
    """All photos and videos to segment, and a line about what folders and patterns hold besides."""

    photos: list[Input]
    videos: list[Input]
    passed_over: str = ""


def find_inputs(
    given: Sequence[str | os.PathLike[str]], out: Path, *, videos: bool = False
) -> Inputs:
    """The photos, and videos, that a command line means, each once.

    A file is taken whatever its name. Of a folder, with its subfolders, and of a pattern, which a
    shell may have left as it is, those files count that are named as pictures or videos; hidden
    ones and the output folder's do not.

    Args:
        given: files, folders and patterns such as `photos/*.jpg`; `-` for a picture from standard
            input, called "stdin"; `@FILE` for a text file that names one of these a line, all but
            `-` and further such files. What exists by its whole name is a file all the same.
        out: the output folder.
        videos: those are taken, too; files that are named so are not read as photos.

    Raises:
        DataError: nothing is given, a list cannot be read or is empty, or no picture is in a folder
            or matches a pattern.
    """
    if not given:
        raise DataError("no image is given: name at least one file or folder")
    wanted = _PHOTOS_AND_VIDEOS if videos else _PHOTOS
    found: dict[str, Input] = {}
    others: list[Path] = []
    for path in _listed(given):
        if path is None:
            photos = [Input(Path("stdin"), stdin=True)]
        elif path.is_dir():
            photos = wanted.among(path, "holds", _in_folder(path, out), others)
        elif not path.exists() and any(sign in str(path) for sign in _PATTERN):
            photos = wanted.among(path, "matches", _matching(path, out), others)
        else:
            photos = [Input(path)]
        for item in photos:
            key = STDIN if item.stdin else os.path.abspath(item.path)
            found.setdefault(key, item._replace(video=videos and is_video_name(item.path)))
    items = list(found.values())
    return Inputs(
        [item for item in items if not item.video],
        [item for item in items if item.video],
        _passed_over(others, wanted),
    )


def _listed(given: Sequence[str | os.PathLike[str]]) -> Iterator[Path | None]:
    """What is given, with the lines of lists in their place; None is standard input."""
    for name in (os.fspath(path) for path in given):
        path = Path(name).expanduser()
        if name == STDIN:
            yield None
        elif name.startswith(_LIST) and not path.exists():
            yield from _lines(Path(name.removeprefix(_LIST)).expanduser())
        else:
            yield path


def _lines(file: Path) -> list[Path]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"@{file}: cannot be read ({error.strerror}); correct the name") from error
    except UnicodeDecodeError as error:
        raise DataError(f"@{file}: is no text in UTF-8; give one path a line") from error
    paths = [Path(line.strip()).expanduser() for line in lines if line.strip()]
    if not paths:
        raise DataError(f"@{file}: is empty; give one path a line")
    return paths


class _Wanted(NamedTuple):
    """Which files count of folders and patterns.

    Attributes:
        what: they are.
        whats: the same in the plural.
        endings: of their names, in words.
        counts: whether a name is of them.
    """

    what: str
    whats: str
    endings: str
    counts: Callable[[Path], bool]

    def among(
        self, path: Path, verb: str, items: Sequence[Input], others: list[Path]
    ) -> list[Input]:
        """The items that count; the rest joins `others`."""
        found = [item for item in items if self.counts(item.path)]
        rest = [item.path for item in items if not self.counts(item.path)]
        if not found:
            what = f"no {self.what}, but other files ({_kinds(rest)})" if rest else "no file"
            raise DataError(f"{path}: {verb} {what}; {self.endings}")
        others += rest
        return found


_PHOTOS = _Wanted(
    "picture", "pictures", f"pictures end in {', '.join(PHOTO_SUFFIXES)}", is_photo_name
)
_PHOTOS_AND_VIDEOS = _Wanted(
    "picture or video",
    "pictures or videos",
    f"{_PHOTOS.endings}, and videos in {', '.join(VIDEO_SUFFIXES)}",
    lambda path: is_photo_name(path) or is_video_name(path),
)


def _in_folder(folder: Path, out: Path) -> list[Input]:
    if _real(folder) == _real(out):
        raise DataError(
            f"the output folder {out} is the folder of the photos itself, where the next run would "
            f"take the outputs for photos: choose another, such as {folder / 'predictions'}"
        )
    return [Input(file, folder) for file in _walk(folder, out)]


def _matching(pattern: Path, out: Path) -> list[Input]:
    """What a shell would have made of a pattern: files, and folders with what they hold."""
    matches = [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]
    items: list[Input] = []
    for match in (match for match in matches if not _inside(match, out)):
        if not match.is_dir():
            items.append(Input(match))
        elif "**" not in str(pattern):  # which matches the files of a folder besides the folder
            items += [Input(file, match) for file in _walk(match, out)]
    return items


def _walk(folder: Path, out: Path) -> Iterator[Path]:
    """All files that are not hidden, in order; links to folders are followed, each folder once."""

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error

    seen: set[str] = {_real(out)}
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if _real(parent) in seen:
            folders.clear()
            continue
        seen.add(_real(parent))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _real(path: str | os.PathLike[str]) -> str:
    return os.path.realpath(path)


def _inside(path: Path, folder: Path) -> bool:
    real = Path(_real(path))
    return Path(_real(folder)) in (real, *real.parents)


def _passed_over(others: Sequence[Path], wanted: _Wanted) -> str:
    if not others:
        return ""
    kinds = _kinds(others)
    return f"passed over {len(others)} files that are not named as {wanted.whats} ({kinds})"


def _kinds(files: Sequence[Path]) -> str:
    """The commonest endings of files, in words."""
    kinds = collections.Counter(path.suffix.lower() or "no ending" for path in files)
    shown = [f"{count} of {kind}" for kind, count in kinds.most_common(_SHOWN)]
    return ", ".join(shown)


class Target(NamedTuple):
    """Where the outputs of a photo go.

    Attributes:
        name: their path below the output folder, without `_KIND.SUFFIX`.
        files: each.
        beside: GeoTIFFs beside some of them, of photos that have coordinates.
    """

    name: str
    files: list[Path]
    beside: list[Path]


def output_files(
    inputs: Sequence[Input],
    out: Path,
    endings: Callable[[Input], Sequence[str]],
    beside: Callable[[Input], Sequence[str]] = lambda _: (),
) -> list[Target]:
    """The output files of every photo, none of which is a photo to read.

    Args:
        inputs: different photos and videos.
        out: the output folder.
        endings: gives what follows the name and `_`, such as "mask.png".
        beside: gives the same of files that only photos with coordinates have.

    Raises:
        DataError: an output would overwrite a photo, or another output.
    """
    names = output_names(inputs)
    targets = [
        Target(name, *([out / f"{name}_{end}" for end in ends(item)] for ends in (endings, beside)))
        for name, item in zip(names, inputs, strict=True)
    ]
    real: dict[Path, str] = {}  # of folders: a call for each of many files would take long

    def key(path: Path) -> tuple[str, str]:
        if path.parent not in real:
            real[path.parent] = _real(path.parent)
        return real[path.parent], path.name

    photos = {key(item.path): item.path for item in inputs}
    for file in (file for target in targets for file in target.files + target.beside):
        if key(file) in photos:
            raise DataError(
                f"the output {file} would overwrite the image {photos[key(file)]}: choose another "
                "output folder"
            )
    return targets


def output_names(inputs: Sequence[Input]) -> list[str]:
    """Different names for the outputs of different photos, as short as they can be.

    Args:
        inputs: different photos.

    Returns:
        The paths below the output folder, without `_KIND.SUFFIX`: the names of the photos without
        suffix, in the subfolders of the folder that was given, if they differ; else with the folder
        in front; else the whole path below the folder that all share, suffix included.

    Raises:
        DataError: even those agree.
    """
    shared = Path(os.path.commonpath([item.path.absolute().parent for item in inputs]))
    names: list[str] = []
    for name in (_short_name, _name_with_folder, lambda item: _whole_name(item, shared)):
        names = [name(item) for item in inputs]
        counts = collections.Counter(map(plain_name, names))
        if len(counts) == len(names):
            return names
    same = next(name for name in names if counts[plain_name(name)] > 1)
    raise DataError(f"several images would be written to {same}_mask.png: predict them apart")


def plain_name(name: str) -> str:
    """What is one name to some file systems."""
    return unicodedata.normalize("NFC", name).casefold()


def _short_name(item: Input) -> str:
    return (item.below.parent / item.below.stem).as_posix()


def _name_with_folder(item: Input) -> str:
    if item.folder is None:
        return f"{item.path.absolute().parent.name}_{item.path.stem}"
    return f"{item.folder.resolve().name}/{_short_name(item)}"


def _whole_name(item: Input, shared: Path) -> str:
    path = item.path.absolute().relative_to(shared)
    name = path.as_posix() if item.folder else "_".join(path.parts)
    return name.replace(".", "_")
