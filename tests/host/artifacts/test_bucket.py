"""The step that makes the bucket and MLflow's own key, against a MinIO of our own: see minio.py."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError

from console import UserError
from develop.scratch.ports import free_port
from services.bucket import prepare
from tests.support.minio_api import Minio, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = ("owner-of-it-all", "secret-of-the-owner")
MLFLOW = ("mlflow", "secret-of-mlflow")


@pytest.fixture
def minio() -> Iterator[Minio]:
    """Serve a store that has the bucket of somebody else."""
    store = Minio(ROOT, free_port(), buckets={"payroll": {"2026.csv": b"1"}})
    with serve(store):
        yield store


def credentials(path: Path, keys: tuple[str, str]) -> str:
    path.write_text(f"[default]\naws_access_key_id = {keys[0]}\naws_secret_access_key = {keys[1]}\n")
    return str(path)


def run(minio: Minio, folder: Path, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, str] = MLFLOW) -> None:
    """Run the step as a stack does."""
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", credentials(folder / "mlflow", keys))
    prepare("s3://mlflow/artifacts", minio.endpoint, credentials(folder / "owner", ROOT))


def client(minio: Minio, keys: tuple[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=minio.endpoint,
        region_name="us-east-1",
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
    )


def test_mlflow_gets_a_key_that_opens_its_bucket_alone(
    minio: Minio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(minio, tmp_path, monkeypatch)
    assert minio.users == dict([MLFLOW])
    assert minio.attached == {"mlflow": "mlflow-stacks"}
    resources = [statement["Resource"] for statement in minio.policies["mlflow-stacks"]["Statement"]]
    assert resources == [["arn:aws:s3:::mlflow", "arn:aws:s3:::mlflow/*"]]
    own = client(minio, MLFLOW)
    own.put_object(Bucket="mlflow", Key="a", Body=b"b")
    with pytest.raises(ClientError, match="403"):
        own.get_object(Bucket="payroll", Key="2026.csv")
    with pytest.raises(ClientError, match="403"):
        own.create_bucket(Bucket="another")


def test_a_second_run_changes_and_empties_nothing(
    minio: Minio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(minio, tmp_path, monkeypatch)
    minio.buckets["mlflow"]["artifacts/1/model"] = b"weights"
    minio.calls.clear()
    run(minio, tmp_path, monkeypatch)
    assert minio.calls == []
    assert minio.buckets == {"payroll": {"2026.csv": b"1"}, "mlflow": {"artifacts/1/model": b"weights"}}


def test_a_new_secret_replaces_the_old_one(
    minio: Minio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(minio, tmp_path, monkeypatch)
    run(minio, tmp_path, monkeypatch, ("mlflow", "another-secret"))
    assert minio.users == {"mlflow": "another-secret"}


@pytest.mark.parametrize("status", [403, 501, 503])
def test_a_store_that_lets_nobody_make_a_key_is_told(
    minio: Minio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    minio.refusal = status
    with pytest.raises(UserError, match="does not let its owner make MLflow's key") as refused:
        run(minio, tmp_path, monkeypatch)
    assert "invoke up --set object_store=external" in refused.value.hints
    assert not [secret for _, secret in (ROOT, MLFLOW) if secret in str(refused.value)]
    assert minio.users == {}


def test_a_store_that_starts_later_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Minio(ROOT, free_port())
    step = threading.Thread(target=run, args=(store, tmp_path, monkeypatch), daemon=True)
    step.start()
    time.sleep(1)  # a step that did not wait would have failed by now
    assert step.is_alive()
    with serve(store):
        step.join(60)
        assert store.users == dict([MLFLOW])
