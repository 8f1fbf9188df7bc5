"""How our servers serve, with an application that loads at once."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from develop.scratch.ports import free_port
from tests.support.running import Running, clean_environment, request_json

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("workers", [1, 2])
def test_an_answer_waits_for_no_acknowledgement(tmp_path: Path, workers: int) -> None:
    port, log = free_port(), tmp_path / "log"
    factory = "'tests.support.sockets:create'" if workers > 1 else "sockets.create"
    code = (
        "from tests.support import sockets; from process.serve import serve\n"
        f"if __name__ == '__main__': serve({factory}, '127.0.0.1', {port}, {workers})"
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
        assert request_json(server.url)[1]["nodelay"] != 0
    finally:
        server.stop()
