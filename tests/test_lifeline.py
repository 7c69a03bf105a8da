import queue
import socket

from flaxseg import lifeline


def test_the_end_of_a_process_breaks_its_line():
    gone = queue.Queue()
    port = lifeline.hold_all(gone.put)
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    second = socket.create_connection(("127.0.0.1", port))
    first = socket.create_connection(("127.0.0.1", port))
    first.sendall(b"1\n")
    second.sendall(b"2\n")
    second.close()
    assert gone.get(timeout=30) == 2
    first.close()
    assert gone.get(timeout=30) == 1
    assert gone.empty()


def test_without_the_first_process_there_is_no_line():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        gone = queue.Queue()
        lifeline.hold_first("127.0.0.1", port, 3, gone.put)
        connection, _ = server.accept()
        assert connection.recv(10) == b"3\n"
        connection.close()
        assert gone.get(timeout=30) == 0
    lifeline.hold_first("127.0.0.1", port, 3, gone.put)
    assert gone.empty()
