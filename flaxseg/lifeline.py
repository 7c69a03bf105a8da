"""Connections that do nothing but break when a process ends.

JAX misses a process that was killed by its heartbeat, after minutes, and then aborts the others.
The kernel closes the connections of a process at once, whichever way it ends.

Anybody may connect to the port of process 0. Only who knows its secret is believed, and whoever is
silent or talks too much is sent away.
"""

import contextlib
import hmac
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable

_SECONDS_TO_CONNECT = 60.0
_SECONDS_TO_NAME = 10.0
"""In which a stranger must have said who it is."""

_NAME_BYTES = 128
"""Of the longest first line."""

_STRANGERS = 32
"""Most that are listened to at once; the kernel lets some more wait."""

_HELD = b"\n"

Lost = Callable[[int], None]
"""Takes the number of a process that is gone."""


def hold_all(processes: int, lost: Lost) -> str:
    """Lets all other processes connect to this one, number 0.

    Args:
        processes: number of them, with this one.
        lost: called in a thread for each that goes.

    Returns:
        What the others need to connect, which nobody else may see.
    """
    server = socket.create_server(("", 0))
    secret = secrets.token_hex(16)
    _start(_Switchboard(server, secret, processes, lost).serve)
    return f"{server.getsockname()[1]} {secret}"


def hold_first(host: str, invitation: str, process: int, lost: Lost) -> None:
    """Connects this process to number 0, or does without if that cannot be reached.

    Args:
        host: of process 0.
        invitation: what `hold_all` has given there.
        process: number of this one.
        lost: called in a thread, with 0, when process 0 goes.
    """
    port, _, secret = invitation.partition(" ")
    with contextlib.suppress(OSError):
        connection = socket.create_connection((host, int(port)), timeout=_SECONDS_TO_CONNECT)
        connection.settimeout(None)
        connection.sendall(_name(secret, process) + b"\n")
        _start(lambda: _wait_for_the_end(connection, lost))


def _wait_for_the_end(connection: socket.socket, lost: Lost) -> None:
    with connection:
        if _heard(connection) != _HELD:
            return  # sent away, which is no reason to end: a busy process may be late with its name
        while _heard(connection):
            pass
    lost(0)


def _name(secret: str, process: int) -> bytes:
    """The first line of a process, which tells who it is."""
    return f"{secret} {process}".encode()


def _heard(connection: socket.socket, most: int = 1) -> bytes | None:
    """What the other end says next: b"" if it is gone, None if there was nothing to hear."""
    try:
        return connection.recv(most)
    except BlockingIOError:
        return None
    except OSError:
        return b""


class _Stranger:
    """A connection that has not said yet who it is."""

    def __init__(self):
        self.deadline = time.monotonic() + _SECONDS_TO_NAME
        self.said = b""


class _Switchboard:
    """The end of all connections in process 0, served by one thread.

    It listens until every process is held; from then on there is no port to connect to.
    """

    def __init__(self, server: socket.socket, secret: str, processes: int, lost: Lost):
        self._server, self._listens, self._lost = server, False, lost
        self._expected = {_name(secret, process): process for process in range(1, processes)}
        self._strangers: dict[socket.socket, _Stranger] = {}
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Takes what comes, until all that were held are gone."""
        self._server.setblocking(False)
        while self._expected or self._selector.get_map():
            self._listen(len(self._strangers) < _STRANGERS)
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._send_away_the_late()
            if not self._expected:
                self._close_the_port()

    def _patience(self) -> float | None:
        """Seconds until the first stranger is to be sent away."""
        deadlines = [stranger.deadline for stranger in self._strangers.values()]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _listen(self, wanted: bool) -> None:
        """Takes further connections or leaves them to the kernel."""
        wanted = wanted and bool(self._expected)
        if wanted and not self._listens:
            self._selector.register(self._server, selectors.EVENT_READ, self._accept)
        if self._listens and not wanted:
            self._selector.unregister(self._server)
        self._listens = wanted

    def _close_the_port(self) -> None:
        self._listen(False)
        self._server.close()
        for connection in list(self._strangers):
            self._send_away(connection)

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:
            time.sleep(0.1)  # it is gone again, or this process may open no more files
            return
        connection.setblocking(False)
        self._strangers[connection] = _Stranger()
        self._wait_for(connection, lambda: self._listen_to(connection))

    def _listen_to(self, connection: socket.socket) -> None:
        """Takes a part of the first line of a stranger."""
        stranger = self._strangers[connection]
        heard = _heard(connection, _NAME_BYTES - len(stranger.said))
        stranger.said += heard or b""
        line, ended, _ = stranger.said.partition(b"\n")
        process = self._recognised(line) if ended else None
        if process is not None:
            self._hold(connection, process)
        elif ended or heard == b"" or len(stranger.said) == _NAME_BYTES:
            self._send_away(connection)

    def _recognised(self, line: bytes) -> int | None:
        """The number of the process that says this line, which is not believed a second time."""
        for name in self._expected:
            if hmac.compare_digest(name, line):
                return self._expected.pop(name)
        return None

    def _hold(self, connection: socket.socket, process: int) -> None:
        del self._strangers[connection]
        self._selector.unregister(connection)
        self._wait_for(connection, lambda: self._hear(connection, process))
        with contextlib.suppress(OSError):
            connection.send(_HELD)

    def _hear(self, connection: socket.socket, process: int) -> None:
        if _heard(connection) == b"":
            self._close(connection)
            self._lost(process)

    def _send_away_the_late(self) -> None:
        now = time.monotonic()
        late = [key for key, stranger in self._strangers.items() if stranger.deadline <= now]
        for connection in late:
            self._send_away(connection)

    def _send_away(self, connection: socket.socket) -> None:
        del self._strangers[connection]
        self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()

    def _wait_for(self, connection: socket.socket, heard: Callable[[], None]) -> None:
        self._selector.register(connection, selectors.EVENT_READ, heard)


def _start(function: Callable[[], None]) -> None:
    threading.Thread(target=function, daemon=True).start()
