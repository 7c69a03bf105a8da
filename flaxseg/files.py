"""Files that are either whole or as they were, whenever the process is killed."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Gives a name in the same folder to write to; it becomes `path` when the context ends.

    After an exception the partial file is removed and `path` is as it was.

    Raises:
        OSError: the file cannot be replaced.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def replace_text(path: Path, text: str) -> None:
    """Writes a whole text file, UTF-8.

    Raises:
        OSError: the file cannot be written; what was there before is unharmed.
    """
    with replace_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Digest of a file's content, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
