"""Start real servers for the tests, and wait for them with a deadline that shows their log."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from develop.scratch.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[2]
DEADLINE = 120  # seconds, for a noisy machine

STARTED_BY_SOMEONE_ELSE = ("MLFLOW_", "_MLFLOW_", "AWS_", "PROMETHEUS_", "prometheus_")


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Take the environment of the tests, without any setting of mlflow, and add what is given."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(STARTED_BY_SOMEONE_ELSE)}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(extra or {})}


def request(
    url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One HTTP request: status, headers with lower-case names, body. No status raises."""
    asked = urllib.request.Request(url, data=body, method=method, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()


def request_json(url: str, body: object = None) -> tuple[int, Any]:
    """One HTTP request with JSON both ways; POST when there is a body."""
    headers = {"content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    status, _, content = request(url, method="POST" if data else "GET", headers=headers, body=data)
    return status, json.loads(content)


@dataclass
class Running:
    """A process that serves on a port, and its log."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def tail(self) -> str:
        """Read the last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def until(self, what: str, true: Callable[[], bool], *, alive: bool = True) -> None:
        """Wait until something is true; fail with the state and the last log lines."""
        end = time.monotonic() + DEADLINE
        while not true():
            state = self.process.poll()
            assert not (alive and state is not None), f"{what}: exited with {state}\n{self.tail()}"
            assert time.monotonic() < end, f"{what}: not within {DEADLINE} s, state {state}\n{self.tail()}"
            time.sleep(0.1)

    def answers(self, path: str, status: int = 200) -> bool:
        """Whether a path gives this status."""
        try:
            return request(self.url + path)[0] == status
        except OSError:
            return False

    def wait_ready(self, path: str = "/ready") -> Running:
        """Wait until a path answers 200."""
        self.until(f"GET {path} answers 200", lambda: self.answers(path))
        return self

    def family(self) -> list[psutil.Process]:
        """List the process and all that it started."""
        top = psutil.Process(self.pid)
        return [top, *top.children(recursive=True)]

    def ended(self, family: list[psutil.Process]) -> None:
        """Wait until none of these processes is left and the port is free."""

        def gone() -> bool:
            self.process.poll()  # reaps it
            return not any(process.is_running() for process in family)

        self.until(f"no process of {family} is left", gone, alive=False)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", self.port))

    def exit_code(self) -> int:
        """Wait for its end."""
        return self.process.wait(DEADLINE)

    def stop(self) -> None:
        """End it and all that it started."""
        if self.process.poll() is None:
            family = self.family()
            self.process.terminate()
            try:
                self.process.wait(30)
            finally:
                for process in family:
                    if process.is_running():
                        process.kill()


def launch(
    folder: Path,
    *command: str,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> Running:
    """Start a command of this project; ``{port}`` in its arguments is a free port."""
    port = port or free_port()
    argv = [python, "-m", *(word.replace("{port}", str(port)) for word in command)]
    log = folder / f"{command[0]}-{port}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=clean_environment(env),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    return Running(process, port, log)
