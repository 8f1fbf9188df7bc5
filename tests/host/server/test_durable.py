"""What is acknowledged is on disk, by what the programs ask of the kernel: a power cut after it loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from develop.scratch.ports import free_port
from tests.support import tracing
from tests.support.running import ROOT, Running, clean_environment, request, request_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEYS = ("owner", "secret-of-the-owner")
MEGABYTES = 1 << 20


def client(port: int, secret: str = KEYS[1]) -> Any:
    once = Config(signature_version="s3v4", retries={"total_max_attempts": 1}, read_timeout=60)
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=KEYS[0],
        aws_secret_access_key=secret,
        config=once,
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start the object store that stacks bring, on a folder with one bucket; perhaps traced."""
    running: list[Running] = []

    def start(*, log: Path | None = None) -> Running:
        (tmp_path / "objects" / "bucket").mkdir(parents=True)
        port = free_port()
        program = ROOT / "images" / "object-store" / "object_store.py"
        command = [sys.executable, str(program), "server", str(tmp_path / "objects")]
        command += ["--address", f"127.0.0.1:{port}"]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {"PATH": path, "MINIO_ROOT_USER": KEYS[0], "MINIO_ROOT_PASSWORD": KEYS[1]}
        with (tmp_path / "store.log").open("wb") as output:
            process = subprocess.Popen(
                tracing.traced(log, *command) if log else command,
                env=environment,
                stdout=output,
                stderr=output,
            )
        running.append(Running(process, port, tmp_path / "store.log"))
        running[-1].until(
            "it answers", lambda: any(running[-1].answers("/", status) for status in (400, 403))
        )
        return running[-1]

    yield start
    for started in running:
        started.stop()


def test_the_store_answers_an_upload_when_it_is_on_disk(
    store: Callable[..., Running], tmp_path: Path
) -> None:
    log = tmp_path / "calls"
    server = store(log=log)
    client(server.port).put_object(Bucket="bucket", Key="folder/name", Body=b"x" * 100_000)
    tracing.stop(server.process)
    assert tracing.on_disk_when_answered(tracing.calls(log), "bucket/folder/name")


def test_the_store_passes_on_whatever_its_clients_say(store: Callable[..., Running], tmp_path: Path) -> None:
    server = store()
    s3 = client(server.port)
    large = os.urandom(12 * MEGABYTES)
    (tmp_path / "large").write_bytes(large)
    s3.upload_file(str(tmp_path / "large"), "bucket", "in parts")
    s3.put_object(Bucket="bucket", Key="ü/empty", Body=b"")
    assert s3.get_object(Bucket="bucket", Key="in parts")["Body"].read() == large
    assert s3.get_object(Bucket="bucket", Key="in parts", Range="bytes=5-9")["Body"].read() == large[5:10]
    assert s3.head_object(Bucket="bucket", Key="ü/empty")["ContentLength"] == 0
    address = s3.generate_presigned_url("put_object", {"Bucket": "bucket", "Key": "presigned"})
    assert request(address, method="PUT", body=b"content")[0] == 200
    assert (tmp_path / "objects" / "bucket" / "presigned").read_bytes() == b"content"
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket="bucket", Key="absent")
    with pytest.raises(ClientError):
        client(server.port, "wrong").put_object(Bucket="bucket", Key="refused", Body=large)
    listed = {item["Key"] for item in s3.list_objects_v2(Bucket="bucket")["Contents"]}
    assert listed == {"in parts", "ü/empty", "presigned"}
    s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": key} for key in listed]})
    assert "Contents" not in s3.list_objects_v2(Bucket="bucket")


def test_many_upload_at_once(store: Callable[..., Running], tmp_path: Path) -> None:
    server = store()
    clients = [
        client(server.port) for _ in range(8)
    ]  # made one by one: boto3's own set-up is not for threads

    def upload(number: int) -> None:
        for index in range(10):
            clients[number].put_object(Bucket="bucket", Key=f"{number}/{index}", Body=b"x")

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list((tmp_path / "objects" / "bucket").glob("*/*"))) == 80


def test_the_store_ends_with_its_rclone_and_rclone_with_it(store: Callable[..., Running]) -> None:
    server = store()
    family = server.family()
    family[1].kill()
    assert server.exit_code() == 1
    server.ended(family)


def test_the_server_answers_an_artifact_and_a_run_when_they_are_on_disk(tmp_path: Path) -> None:
    log, port = tmp_path / "calls", free_port()
    command = [sys.executable, "-m", "server", "--port", str(port)]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    environment = clean_environment({"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"})
    with (tmp_path / "log").open("wb") as output:
        process = subprocess.Popen(
            tracing.traced(log, *command), cwd=tmp_path, env=environment, stdout=output, stderr=output
        )
    server = Running(process, port, tmp_path / "log")
    try:
        server.wait_ready()
        artifact = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/0/run/artifacts/file.txt"
        assert request(artifact, method="PUT", body=b"x" * 100_000)[0] == 200
        uploaded = tracing.calls(log)
        name = {"name": "created last"}
        assert "experiment_id" in request_json(f"{server.url}/api/2.0/mlflow/experiments/create", name)[1]
    finally:
        tracing.stop(process)
    assert tracing.on_disk_when_answered(uploaded, "artifacts/file.txt")
    # SQLite commits by deleting its journal: out of the folder, on disk too.
    assert tracing.on_disk_when_answered(tracing.calls(log), "mlflow.db-journal")
