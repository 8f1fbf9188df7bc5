"""Whether something is well at a port: it takes connections, and answers at once where it should."""

from __future__ import annotations

import socket
import threading

from stacks.engines.ports import listens


def test_a_server_that_takes_connections_and_says_nothing_is_not_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listens(port)
        assert not listens(port, b"hello")
    assert not listens(port)


def test_a_server_that_answers_is_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(5)
                connection.sendall(b"h")

        thread = threading.Thread(target=answer)
        thread.start()
        assert listens(server.getsockname()[1], b"hello")
        thread.join()
