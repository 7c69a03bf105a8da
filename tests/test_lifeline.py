import contextlib
import queue
import socket

import pytest

from flaxseg import lifeline

MOMENT = 30
"""Seconds after which a test gives up."""


@pytest.fixture
def gone():
    """The numbers of the processes that were lost."""
    return queue.Queue()


@pytest.fixture
def door(gone):
    """Port and secret of a run of three processes."""
    port, secret = lifeline.hold_all(3, gone.put).split()
    return int(port), secret


@pytest.fixture
def call():
    """Connects to a port and says something."""
    with contextlib.ExitStack() as calls:

        def connect(port, words=""):
            connection = socket.create_connection(("127.0.0.1", port), timeout=MOMENT)
            calls.enter_context(connection).sendall(words.encode())
            return connection

        yield connect


def is_held(connection):
    """Waits for the answer."""
    return connection.recv(1) == b"\n"


def is_sent_away(connection):
    """Waits for the end."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:  # what it said was not even read
        return True


def test_the_end_of_a_process_breaks_its_line(door, gone, call):
    port, secret = door
    second = call(port, f"{secret} 2\n")
    first = call(port, f"{secret} 1\n")
    assert is_held(first) and is_held(second)
    second.close()
    assert gone.get(timeout=MOMENT) == 2
    first.close()
    assert gone.get(timeout=MOMENT) == 1


STRANGERS = {
    "number alone": "1\n",
    "another secret": f"{'0' * 32} 1\n",
    "no number": "{secret}\n",
    "process 0": "{secret} 0\n",
    "a number beyond the run": "{secret} 3\n",
    "a number that is held": "{secret} 2\n",
    "another protocol": "GET / HTTP/1.1\r\n\r\n",
    "no end of the line": "9" * 4096,
    "not even that": "",
}


@pytest.mark.parametrize("words", STRANGERS.values(), ids=STRANGERS)
def test_a_stranger_ends_nothing(door, gone, call, words, monkeypatch):
    port, secret = door
    words = words.format(secret=secret)
    monkeypatch.setattr(lifeline, "_SECONDS_TO_NAME", 0.1)
    second = call(port, f"{secret} 2\n")
    assert is_held(second)
    assert is_sent_away(call(port, words))
    call(port, words).close()
    # The first that is lost is the one that was held, and who has not come yet still may.
    second.close()
    assert gone.get(timeout=MOMENT) == 2
    assert is_held(call(port, f"{secret} 1\n"))
    assert gone.empty()


def test_a_crowd_of_the_silent_keeps_nobody_out(door, gone, call, monkeypatch):
    port, secret = door
    monkeypatch.setattr(lifeline, "_SECONDS_TO_NAME", 0.1)
    monkeypatch.setattr(lifeline, "_STRANGERS", 4)
    crowd = [call(port) for _ in range(10)]
    first, second = (call(port, f"{secret} {process}\n") for process in (1, 2))
    assert is_held(first) and is_held(second)
    assert all(map(is_sent_away, crowd))
    # With all of them there the port is closed.
    with pytest.raises(ConnectionRefusedError):
        while is_sent_away(call(port)):
            pass
    assert gone.empty()


def test_process_0_is_gone_only_for_those_it_held(gone, monkeypatch):
    waited = queue.Queue()
    wait = lifeline._wait_for_the_end
    monkeypatch.setattr(lifeline, "_wait_for_the_end", lambda *args: waited.put(wait(*args)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for answer in (b"\n", b""):
            lifeline.hold_first("127.0.0.1", f"{port} secret", 3, gone.put)
            with server.accept()[0] as connection:
                assert connection.recv(64) == b"secret 3\n"
                connection.sendall(answer)
            waited.get(timeout=MOMENT)
    assert gone.get(timeout=MOMENT) == 0
    lifeline.hold_first("127.0.0.1", f"{port} secret", 3, gone.put)  # nobody is there
    assert gone.empty()
