"""How our servers serve, with an application that loads at once."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from develop.scratch.ports import free_port
from tests.support.running import Running, clean_environment, request_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


BOTH = """
import socket
real = socket.getaddrinfo
socket.getaddrinfo = lambda host, *words, **named: [
    row for name in (["::1", "127.0.0.1"] if host == "localhost" else [host]) for row in real(name, *words, **named)
]
"""


@contextmanager
def serving(tmp_path: Path, host: str, workers: int) -> Iterator[Running]:
    """Serve the application of tests.support.sockets; where it runs, `localhost` is both families."""
    port, log = free_port(), tmp_path / "log"
    factory = "'tests.support.sockets:create'" if workers > 1 else "sockets.create"
    code = (
        f"{BOTH}from tests.support import sockets; from process.serve import serve\n"
        f"if __name__ == '__main__': serve({factory}, '{host}', {port}, {workers})"
    )
    (tmp_path / "serve_it.py").write_text(code)  # a file, for workers import what started them
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "serve_it.py")],
            env=clean_environment(),
            stdout=output,
            stderr=output,
        )
    server = Running(process, port, log)
    try:
        server.wait_ready("/")
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_answer_waits_for_no_acknowledgement(tmp_path: Path, workers: int) -> None:
    with serving(tmp_path, "127.0.0.1", workers) as server:
        assert request_json(server.url)[1]["nodelay"] != 0


@pytest.mark.parametrize("workers", [1, 2])
def test_localhost_is_each_of_its_addresses_whatever_the_number_of_workers(
    tmp_path: Path, workers: int
) -> None:
    with serving(tmp_path, "localhost", workers) as server:
        listening = {c.laddr.ip for c in psutil.Process(server.pid).net_connections("tcp")}
        here = {"127.0.0.1"}
        with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
            here.add("::1")
        assert listening == here
