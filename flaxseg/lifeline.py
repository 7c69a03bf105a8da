"""Connections that do nothing but break when a process ends.

JAX misses a process that was killed by its heartbeat, after minutes, and then aborts the others.
The kernel closes the connections of a process at once, whichever way it ends.
"""

import contextlib
import socket
import threading
from collections.abc import Callable

_SECONDS_TO_CONNECT = 60.0

Lost = Callable[[int], None]
"""Takes the number of a process that is gone."""


def hold_all(lost: Lost) -> int:
    """Lets all other processes connect to this one, number 0.

    Args:
        lost: called in a thread for each that goes.

    Returns:
        The port at which it waits for them.
    """
    server = socket.create_server(("", 0))

    def accept() -> None:
        with server:
            while True:
                connection, _ = server.accept()
                _start(lambda connection=connection: _hold(connection, None, lost))

    _start(accept)
    return server.getsockname()[1]


def hold_first(host: str, port: int, process: int, lost: Lost) -> None:
    """Connects this process to number 0, or does without if that cannot be reached."""
    with contextlib.suppress(OSError):
        connection = socket.create_connection((host, port), timeout=_SECONDS_TO_CONNECT)
        connection.settimeout(None)
        connection.sendall(f"{process}\n".encode())
        _start(lambda: _hold(connection, 0, lost))


def _hold(connection: socket.socket, process: int | None, lost: Lost) -> None:
    """Waits for the other end to go; its first line tells who it is."""
    with connection, contextlib.suppress(OSError), connection.makefile("rb") as lines:
        if process is None:
            name = lines.readline().strip()
            if not name.isdigit():
                return  # not one of us
            process = int(name)
        lines.read()
    if process is not None:
        lost(process)


def _start(function: Callable[[], None]) -> None:
    threading.Thread(target=function, daemon=True).start()
