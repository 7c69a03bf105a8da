"""Locks on files: the operating system lets go of them when a process ends, whichever way."""

import contextlib
import pathlib

from filelock import FileLock


def lock_on(file: pathlib.Path) -> FileLock:
    """A lock that nobody holds yet.

    To acquire it raises OSError where files cannot be locked, as on some network file systems.
    """
    # Its soft lock is a file that a killed process would leave behind, for others to wait for.
    return FileLock(file, fallback_to_soft=False)


def let_go(lock: FileLock) -> None:
    """Releases a lock that is held; its file goes, too, unless a process was killed before."""
    # Removed while it is held: afterwards it may be another's.
    with contextlib.suppress(OSError):
        pathlib.Path(lock.lock_file).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        lock.release()
