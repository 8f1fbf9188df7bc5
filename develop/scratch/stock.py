"""Servers that are thrown away: rclone's for S3 and FTP, and MLflow's own tracking server."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from develop.scratch.ports import free_port
from process.ports import listens

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE = 180  # seconds


def wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while not listens(port):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


@contextmanager
def rclone(kind: str, root: Path) -> Iterator[int]:
    """Serve a folder with rclone, to the user ``access-key`` with ``secret-key``; yield the port."""
    port = free_port()
    log = root.with_suffix(".log")
    argv = [str(Path(sys.executable).parent / "rclone"), "serve", kind, "--addr", f"127.0.0.1:{port}"]
    argv += (
        ["--auth-key", "access-key,secret-key"]
        if kind == "s3"
        else ["--user", "access-key", "--pass", "secret-key"]
    )
    with log.open("wb") as output:
        process = subprocess.Popen([*argv, str(root)], stdout=output, stderr=output)
    try:
        wait_for_port(process, port, log)
        yield port
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def s3_server(root: Path) -> Iterator[dict[str, str]]:
    """Serve the folders of `root` as buckets; yield the environment that finds them."""
    with rclone("s3", root) as port:
        yield {
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "access-key",
            "AWS_SECRET_ACCESS_KEY": "secret-key",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextmanager
def ftp_server(root: Path) -> Iterator[str]:
    """Serve a folder with FTP; yield it as an artifact destination."""
    with rclone("ftp", root) as port:
        yield f"ftp://access-key:secret-key@127.0.0.1:{port}/"


@contextmanager
def tracking_server(
    database: str, destination: str, env: dict[str, str] | None = None, *, workspaces: bool = False
) -> Iterator[str]:
    """Run MLflow's own tracking server and yield its URL."""
    port = free_port()
    argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--backend-store-uri", database, "--artifacts-destination", destination, "--workers", "1"]
    argv += ["--enable-workspaces"] if workspaces else []
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with tempfile.NamedTemporaryFile(suffix=".log") as output:
        process = subprocess.Popen(
            argv,
            env=os.environ | settings | (env or {}),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + DEADLINE
            while True:
                try:
                    if requests.get(f"{url}/health", timeout=5).ok:
                        break
                except requests.RequestException:
                    assert process.poll() is None, Path(output.name).read_text()[-3000:]
                    assert time.monotonic() < deadline, Path(output.name).read_text()[-3000:]
                    time.sleep(0.2)
            yield url
        finally:
            os.killpg(process.pid, 15)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait(20)
