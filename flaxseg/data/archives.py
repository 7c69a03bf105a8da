"""Published archives, extracted by Python's own modules: TFDS's extraction needs TensorFlow.

Only the members that are needed are taken, as plain files, and an archive with a member that points
out of its folder is refused.
"""

import contextlib
import dataclasses
import pathlib
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import IO

from flaxseg.errors import DataError

_BLOCK = 2**20


@dataclasses.dataclass(frozen=True)
class Archive:
    """A published file.

    Attributes:
        file: its name.
        members: regular expression of the members that are needed, by their whole path.
        url: public address, if it has one.
        size: bytes; 0 if unknown.
        sha256: checksum of the file; "" if unknown.
    """

    file: str
    members: str
    url: str = ""
    size: int = 0
    sha256: str = ""


def find_archives(root: pathlib.Path, archives: Sequence[Archive]) -> dict[Archive, pathlib.Path]:
    """The files of those archives that lie in a folder, also where a .tar.gz was unpacked to .tar.

    Args:
        root: the folder.
        archives: what may lie there.
    """
    found = {}
    for archive in archives:
        for name in (archive.file, archive.file.removesuffix(".gz")):
            if (root / name).is_file():
                found.setdefault(archive, root / name)
    return found


def unpack(files: Mapping[Archive, pathlib.Path], target: pathlib.Path) -> None:
    """Extracts the needed members of archives into one folder.

    Args:
        files: the archives and where they lie.
        target: folder to write to.

    Raises:
        DataError: a file is no archive, damaged, cut short or unsafe, or lacks every member.
    """
    for archive, path in files.items():
        try:
            with path.open("rb") as file:
                members = _zip_members if zipfile.is_zipfile(file) else _tar_members
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); restore it") from error
        try:
            count = _extract(members(path), archive, path, target)
        except Exception as error:  # damage shows in many ways
            if isinstance(error, DataError) or _is_disk_trouble(error):
                raise
            reason = str(error).partition("\n")[0].rstrip(":")
            raise DataError(
                f"{path}: is no whole archive ({reason}); the download may have been cut short, "
                f"get {archive.file} again"
            ) from error
        if not count:
            raise DataError(
                f"{path}: holds none of the files expected in {archive.file} "
                f"({archive.members}); is it another archive of that name?"
            )


@dataclasses.dataclass(frozen=True)
class _Member:
    """A member of an archive; `copy` writes its content into a file."""

    name: str
    plain: bool
    copy: Callable[[IO[bytes]], None]


_Members = Generator[_Member, None, None]


def _extract(members: _Members, archive: Archive, path: pathlib.Path, target: pathlib.Path) -> int:
    wanted, count = re.compile(archive.members), 0
    with contextlib.closing(members):
        for member in members:
            parts = pathlib.PurePosixPath(member.name.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or re.match(r"[A-Za-z]:", member.name):
                raise DataError(
                    f"{path}: its member {member.name!r} would be written outside of the folder; "
                    f"do not use this file, get {archive.file} from its publisher"
                )
            if not wanted.fullmatch(parts.as_posix()):
                continue
            if not member.plain:
                raise DataError(f"{path}: its member {member.name!r} is a link or device, no file")
            (target / parts).parent.mkdir(parents=True, exist_ok=True)
            with (target / parts).open("wb") as file:
                member.copy(file)
            count += 1
    return count


def _tar_members(path: pathlib.Path) -> _Members:
    with tarfile.open(path, "r:*") as archive:
        for member in archive:

            def copy(file: IO[bytes], member: tarfile.TarInfo = member) -> None:
                content = archive.extractfile(member)
                assert content is not None  # it is a plain file
                shutil.copyfileobj(content, file)
                if file.tell() != member.size:
                    raise EOFError(f"{member.name} is cut short")

            if not member.isdir():
                yield _Member(member.name, member.isreg(), copy)
        _check_end(archive)


def _check_end(archive: tarfile.TarFile) -> None:
    """Raises unless the archive ends as tar files do: one that is cut between members looks whole.

    Blocks of zeros end a tar file (POSIX pax); tarfile also stops where there is nothing to read.
    """
    file = archive.fileobj
    if file is None or file.tell() < archive.offset + tarfile.BLOCKSIZE:
        raise EOFError("it has no end mark")
    while file.read(_BLOCK):  # gzip compares its checksum at the end of the file
        pass


def _zip_members(path: pathlib.Path) -> _Members:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():

            def copy(file: IO[bytes], member: zipfile.ZipInfo = member) -> None:
                with archive.open(member) as content:  # reading to the end compares the checksum
                    shutil.copyfileobj(content, file)

            kind = stat.S_IFMT(member.external_attr >> 16)
            if not member.is_dir():
                yield _Member(member.filename, kind in (0, stat.S_IFREG), copy)


def _is_disk_trouble(error: BaseException) -> bool:
    """Whether the operating system refused something; damaged data come without its number."""
    return isinstance(error, OSError) and error.errno is not None
