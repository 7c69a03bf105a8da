"""What the caches hold, and how they are emptied of what flaxseg has written."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flaxseg.caches import DOWNLOADS, IMPORTED, PROGRAMS, cache_root
from flaxseg.doctor.section import Finding, Section
from flaxseg.printed import in_bytes

_PROGRAM = re.compile(r".+-[0-9a-f]{64}-(cache|atime)")
"""How JAX calls a compiled program and the time when it was last used."""

_PREPARED = re.compile(r".+-[0-9a-f]{8}-[0-9a-f]{16}(-skip)?")
"""How prepared data are called: what they are made of, its place, its content."""


_IMPORT = re.compile(r"[0-9a-f]{32}")
"""How a model directory made of another checkpoint is called: by that one's content."""


class Store(NamedTuple):
    """What the caches hold of one kind.

    Attributes:
        name: of the kind.
        folder: where it lies.
        paths: files and folders that flaxseg has written there.
        kept: `--clean` leaves it.
    """

    name: str
    folder: Path
    paths: list[Path]
    kept: bool = False

    def __str__(self) -> str:
        size = in_bytes(sum(map(_size, self.paths)))
        kept = ", which --clean leaves: downloading takes long" if self.kept and self.paths else ""
        return f"{self.name:18} {size:>10}  {self.folder}{kept}"


def find_stores(root: Path) -> list[Store]:
    """What flaxseg has written to a cache; files of others are passed over."""
    programs, downloads, imported = (root / name for name in (PROGRAMS, DOWNLOADS, IMPORTED))
    prepared = [
        path
        for kind in _entries(root)
        if kind.is_dir() and kind not in (programs, downloads, imported)
        for path in _entries(kind)
        if path.is_dir() and _PREPARED.fullmatch(path.name)
    ]
    compiled = [path for path in _entries(programs) if _PROGRAM.fullmatch(path.name)]
    models = [path for path in _entries(imported) if _IMPORT.fullmatch(path.name)]
    return [
        Store("compiled programs", programs, compiled),
        Store("imported models", imported, models),
        Store("prepared data", root, prepared),
        Store("downloads", downloads, list(_entries(downloads)), kept=True),
    ]


def examine_stores(clean: bool) -> Section:
    """Names the caches with their sizes, and empties them if that is asked for."""
    stores = find_stores(cache_root())
    lines, findings = [str(store) for store in stores], []
    if clean:
        for store in (store for store in stores if not store.kept):
            left = [path for path in store.paths if not _removed(path)]
            count = len(store.paths) - len(left)
            lines.append(f"removed {count} of {len(store.paths)} {store.name} in {store.folder}")
            if left:
                what = f"{left[0]} cannot be removed, nor can {len(left) - 1} others"
                findings.append(Finding(what, f"ls -ld '{left[0]}' shows whose it is"))
    return Section("caches", lines, findings)


def _entries(folder: Path) -> Iterator[Path]:
    """What is in a folder, without links, in order; nothing where it cannot be read."""
    try:
        yield from sorted(path for path in folder.iterdir() if not path.is_symlink())
    except OSError:
        return


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    files = (os.path.join(place, name) for place, _, names in os.walk(path) for name in names)
    return sum(os.lstat(file).st_size for file in files)


def _removed(path: Path) -> bool:
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError:
        return False
    return True
