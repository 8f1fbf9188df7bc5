"""Artifacts in an S3 store: every byte goes through the server, for a client without settings."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from develop.scratch.ports import free_port
from tests.support.running import Running, clean_environment, request_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., Running]

MEGABYTE = 1024 * 1024

# A stock client that writes down every connection to the store; argv: tracking URI, port of the store, file.
CLIENT = textwrap.dedent("""
    import hashlib, json, pathlib, socket, sys, tempfile

    uri, store_port, file = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
    direct = []
    connect = socket.socket.connect

    def watched(self, address):
        if address[1] == store_port:
            direct.append(address)
        return connect(self, address)

    socket.socket.connect = watched
    import mlflow

    mlflow.set_tracking_uri(uri)
    with mlflow.start_run() as run:
        mlflow.log_text("small", "folder/small.txt")
        mlflow.log_artifact(str(file), "folder")
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        download = mlflow.artifacts.download_artifacts
        got = download(run_id=run.info.run_id, artifact_path="folder", dst_path=folder)
        small = pathlib.Path(got, "small.txt").read_text()
        with pathlib.Path(got, file.name).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    result = {"direct": len(direct), "small": small, "sha256": digest}
    print(json.dumps({**result, "artifacts": run.info.artifact_uri}))
""")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Start an S3 server with a bucket; gives its port, and the environment for a server that uses it."""
    port = free_port()
    (tmp_path / "s3" / "bucket").mkdir(parents=True)
    log = tmp_path / "rclone.log"
    with log.open("wb") as output:
        rclone = subprocess.Popen(
            [
                Path(sys.executable).with_name("rclone"),
                *("serve", "s3", tmp_path / "s3", "--addr", f"127.0.0.1:{port}", "--no-cleanup"),
                *("--auth-key", "accesskey,secretkey"),
            ],
            stdout=output,
            stderr=output,
        )
    environment = {
        "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "accesskey",
        "AWS_SECRET_ACCESS_KEY": "secretkey",
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://bucket",
    }
    Running(rclone, port, log).until("the store answers", lambda: _answers(port))
    yield port, environment
    rclone.terminate()
    rclone.wait(30)


def _answers(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def log_and_load(
    server: Running, store_port: int, file: Path, env: dict[str, str] | None = None
) -> dict[str, Any]:
    """Run the client; gives what it printed."""
    answer = subprocess.run(
        [sys.executable, "-c", CLIENT, server.url, str(store_port), str(file)],
        env=clean_environment({"MLFLOW_DISABLE_TELEMETRY": "true", **(env or {})}),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert answer.returncode == 0, f"{answer.stderr}\n{server.tail()}"
    result: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return result


def peak_memory(server: Running) -> int:
    """Bytes of memory that the process has held at most (VmHWM, proc(5))."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    assert peak
    return int(peak[1]) * 1024


def test_300_megabytes_go_both_ways_through_the_server(
    start: Start, store: tuple[int, dict[str, str]], tmp_path: Path
) -> None:
    port, environment = store
    server = start(env=environment).wait_ready()
    info = request_json(server.url + "/api/3.0/mlflow/server-info")[1]
    assert (info["multipart_uploads_enabled"], info["multipart_downloads_enabled"]) == (False, False)
    assert info["store_type"] == "SqlStore"

    file = tmp_path / "large.bin"
    block = hashlib.sha256(b"seed").digest() * (MEGABYTE // 32)
    digest = hashlib.sha256()
    with file.open("wb") as stream:
        for number in range(300):
            content = number.to_bytes(4) + block[4:]
            digest.update(content)
            stream.write(content)

    before = peak_memory(server)
    result = log_and_load(server, port, file)
    print(f"server's peak memory {before >> 20} MB at rest, {peak_memory(server) >> 20} MB after")
    assert result["direct"] == 0
    assert (result["small"], result["sha256"]) == ("small", digest.hexdigest())
    assert result["artifacts"].startswith("mlflow-artifacts:/")
    assert peak_memory(server) - before < 150 * MEGABYTE
    assert [stored.stat().st_size for stored in (tmp_path / "s3").rglob("large.bin")] == [300 * MEGABYTE]


@pytest.mark.parametrize("presigned", ["false", "true"])
def test_a_client_that_asks_for_presigned_transfers_gets_them_only_where_they_are_on(
    start: Start, store: tuple[int, dict[str, str]], tmp_path: Path, presigned: str
) -> None:
    port, environment = store
    server = start(env={**environment, "_MLFLOW_STACKS_PRESIGNED": presigned}).wait_ready()
    file = tmp_path / "file.bin"
    file.write_bytes(b"1" * 6 * MEGABYTE)
    asks = {
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "true",
        "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": str(5 * MEGABYTE),
        "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": str(5 * MEGABYTE),
    }
    result = log_and_load(server, port, file, asks)
    assert (result["direct"] > 0) == (presigned == "true")
    assert result["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
