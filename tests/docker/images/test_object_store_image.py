"""The contract that the object store made from packages shares with docker.io/pgsty/silo."""

from __future__ import annotations

import secrets
import subprocess
from typing import TYPE_CHECKING

import boto3
import botocore.exceptions
import pytest

from tests.support.containers import HARDENED, Container, Runner, built, docker

if TYPE_CHECKING:
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.docker

KEYS = {"owner": "owner-secret", "mlflow-key": "mlflow-secret"}
COMMAND = ("server", "/data", "--console-address", ":9001")


@pytest.fixture
def options(volume: str, tmp_path: Path) -> list[str]:
    files = {
        "user": "owner\n",
        "password": KEYS["owner"],
        "keys": f"[default]\naws_access_key_id = mlflow-key\naws_secret_access_key = {KEYS['mlflow-key']}\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644)
    tmp_path.chmod(0o755)
    return [
        *(*HARDENED, f"--volume={volume}:/data", f"--volume={tmp_path}:/run/secrets:ro"),
        *("--env=MINIO_ROOT_USER_FILE=user", "--env=MINIO_ROOT_PASSWORD_FILE=/run/secrets/password"),
        *("--env=MLFLOW_S3_KEYS_FILE=keys", "--publish=127.0.0.1::9000", "--health-interval=1s"),
    ]


def client(container: Container, access: str, secret: str) -> S3Client:
    address = docker("port", container.id, "9000").splitlines()[0]
    return boto3.client(
        "s3",
        endpoint_url=f"http://{address}",
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        region_name="us-east-1",
    )


def test_objects_survive_the_replacement_of_the_container_and_both_keys_read_them(
    run: Runner, options: list[str], tmp_path: Path
) -> None:
    first = run(*options, built("object-store"), *COMMAND)
    first.wait_healthy()
    assert first.says("id", "--user") == "10001"
    big = tmp_path / "big"
    big.write_bytes(secrets.token_bytes(20_000_000))  # above boto3's limit of one part
    store = client(first, "mlflow-key", KEYS["mlflow-key"])
    store.create_bucket(Bucket="mlflow")
    store.put_object(Bucket="mlflow", Key="1/run/artifacts/a.txt", Body=b"small")
    store.upload_file(str(big), "mlflow", "1/run/artifacts/big")
    first.stop()
    second = run(*options, built("object-store"), *COMMAND)
    second.wait_healthy()
    for access, secret in KEYS.items():
        store = client(second, access, secret)
        listed = store.list_objects_v2(Bucket="mlflow", Prefix="1/run/")["Contents"]
        assert [row["Key"] for row in listed] == ["1/run/artifacts/a.txt", "1/run/artifacts/big"]
        assert store.get_object(Bucket="mlflow", Key="1/run/artifacts/big")["Body"].read() == big.read_bytes()
    deleted = store.delete_objects(
        Bucket="mlflow", Delete={"Objects": [{"Key": row["Key"]} for row in listed]}
    )
    assert len(deleted["Deleted"]) == 2


def test_a_wrong_secret_opens_nothing(run: Runner, options: list[str]) -> None:
    container = run(*options, built("object-store"), *COMMAND)
    container.wait_healthy()
    with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
        client(container, "owner", "wrong").list_buckets()


def test_the_secrets_are_in_no_argument_no_setting_and_no_log(run: Runner, options: list[str]) -> None:
    container = run(*options, built("object-store"), *COMMAND)
    container.wait_healthy()
    shown = docker("inspect", container.id) + container.logs()
    shown += container.says("sh", "-c", "cat /proc/*/cmdline | tr '\\0' ' '")
    assert not any(secret in shown for secret in KEYS.values())


def test_its_health_check_is_the_one_of_silo(run: Runner, options: list[str]) -> None:
    container = run(*options, built("object-store"), *COMMAND)
    container.wait_healthy()
    assert container.succeeds("/usr/bin/silo", "healthcheck", "ready")
    without_server = ["docker", "run", "--rm", *HARDENED, built("object-store"), "healthcheck", "ready"]
    assert subprocess.run(without_server, capture_output=True, check=False).returncode == 1


def test_without_keys_it_does_not_start() -> None:
    command = ["docker", "run", "--rm", *HARDENED, "--tmpfs=/data:uid=10001", built("object-store")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "open to all" in answer.stderr
