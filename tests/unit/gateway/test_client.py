"""How the gateway inside a server is asked, with a server of this test's own."""

from __future__ import annotations

import http.server
import json
import threading
from typing import TYPE_CHECKING

import pytest

from console import UserError
from develop.scratch.ports import free_port
from gateway.client import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWERS: dict[str, tuple[int, bytes]] = {
    "endpoints/list": (200, b'{"endpoints": [{"name": "first"}]}'),
    "refused": (400, b'{"message": "not so"}'),
    "broken": (500, b"Internal Server Error"),
    "no-json": (200, b"<html>"),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that answers by the path, in an environment whose proxy is not there."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = ANSWERS[self.path.removeprefix("/api/3.0/mlflow/gateway/")]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(
                json.dumps({"type": self.headers["Content-Type"], "body": json.loads(body)}).encode()
            )

        def log_message(self, *_: object) -> None: ...

    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield Server(f"http://127.0.0.1:{running.server_port}/")
        running.shutdown()


def test_it_is_asked_without_the_proxy_of_the_environment(server: Server) -> None:
    assert server.listed("endpoints", "endpoints", "name") == {"first": {"name": "first"}}
    answer = server.call("POST", "create", {"name": "second"})
    assert answer == {"type": "application/json", "body": {"name": "second"}}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("refused", "the tracking server refuses refused: not so"),
        ("broken", "the tracking server refuses broken: Internal Server Error"),
        ("no-json", "the tracking server does not answer: "),
    ],
)
def test_what_it_refuses_is_told_in_its_words(server: Server, path: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        server.call("GET", path)
    assert raised.value.message.startswith(message)
    assert raised.value.hints == (f"server: {server.uri}",)


def test_a_server_that_is_not_there_is_told() -> None:
    server = Server(f"http://127.0.0.1:{free_port()}")
    server.wait(0.2)
    with pytest.raises(UserError, match="does not answer"):
        server.call("GET", "endpoints/list")
