"""One process fills a folder while the others that want it wait."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator

from filelock import FileLock, Timeout

from flaxseg.locks import let_go, lock_on

_PATIENCE_SECONDS = 1.0
_POLL_SECONDS = 0.5


@contextlib.contextmanager
def one_at_a_time(folder: pathlib.Path) -> Iterator[None]:
    """Context in which no other process, nor thread, is that came here with the same folder.

    Who has to wait for more than a moment says so on standard error. The operating system holds the
    lock and lets go of it when a process ends, whichever way; the empty file `.NAME.lock` that it
    belongs to goes, too, unless the process is killed. Where nothing can be locked (a file system
    without locks, a folder of another user) nobody waits, nor may who comes just when that file
    goes: what is done inside must be safe then, too.

    Args:
        folder: what is going to be filled; it need not exist.
    """
    lock = _acquired(folder)
    try:
        yield
    finally:
        if lock is not None:
            let_go(lock)


def _acquired(folder: pathlib.Path) -> FileLock | None:
    file = folder.with_name(f".{folder.name}.lock")
    lock = lock_on(file)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=_PATIENCE_SECONDS)
        except Timeout:
            _say(f"waiting for another process that is filling {folder} (it holds {file.name})")
            lock.acquire(poll_interval=_POLL_SECONDS)
    except OSError:
        return None
    return lock


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
