"""``python -m services.bucket``: make sure that the artifact bucket and MLflow's own key are there.

Idempotent, empties nothing, and ends with exit code 1 and the reason when something is not as it must be. It reads
``MLFLOW_ARTIFACTS_DESTINATION``, ``MLFLOW_S3_ENDPOINT_URL`` and MLflow's key as MLflow does. The store's owner, where
there is one, is the profile ``owner`` of the credentials file ``_MLFLOW_STACKS_OWNER_CREDENTIALS``: without an owner
nothing is made, and the bucket and the key must exist.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from artifacts.s3 import reach
from console import UserError, note, user_errors

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

OWNER = "_MLFLOW_STACKS_OWNER_CREDENTIALS"
POLICY = "mlflow-stacks"
STARTING_UP = 120.0  # seconds; a store that is being started beside this step


def prepare(destination: str, endpoint: str | None, owner_credentials: str | None) -> None:
    """Bring the store to where MLflow can use it.

    Args:
        destination: ``s3://BUCKET/PREFIX``.
        endpoint: URL of the store; None is AWS.
        owner_credentials: path of the owner's credentials file; None makes nothing.

    Raises:
        UserError: the store does not answer, the bucket is missing and may not be made, or MLflow's key does not
            open it.
    """
    bucket = urlsplit(destination).netloc
    where = endpoint or "AWS S3"
    if owner_credentials:
        owner = _client(endpoint, owner_credentials)
        _await(endpoint or "")
        if _missing(owner, bucket, where):
            owner.create_bucket(Bucket=bucket)
            note(f"made the bucket '{bucket}'")
    own_credentials = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    own = _client(endpoint, own_credentials)
    if owner_credentials and own_credentials and not _opens(own, bucket):
        _grant(endpoint or "", bucket, owner_credentials, own_credentials)
        note("made MLflow's own key, for that bucket alone")
    _prove(own, bucket, where)


def _client(endpoint: str | None, credentials: str | None) -> Any:
    import boto3
    from botocore.config import Config

    session = boto3.Session()
    if credentials:
        keys = _keys(credentials)
        session = boto3.Session(aws_access_key_id=keys[0], aws_secret_access_key=keys[1])
    patience = Config(connect_timeout=5, read_timeout=15, retries={"max_attempts": 5, "mode": "standard"})
    region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    return session.client("s3", endpoint_url=endpoint, region_name=region, config=patience)


def _await(endpoint: str) -> None:
    """Wait until the stack's own store takes connections; whether it answers is found out by asking."""
    deadline = time.monotonic() + STARTING_UP
    while True:
        try:
            reach(endpoint)
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(f"the object store at {endpoint} does not answer: {error}") from None
            time.sleep(0.1)
        else:
            return


def _keys(path: str) -> tuple[str, str]:
    """Access key and secret of the first profile of an AWS credentials file."""
    import configparser

    profiles = configparser.RawConfigParser()
    try:
        profiles.read_string(Path(path).read_text())
        profile = profiles[profiles.sections()[0]]
        return profile["aws_access_key_id"], profile["aws_secret_access_key"]
    except (OSError, configparser.Error, KeyError, IndexError):
        raise UserError(f"{path} is not a readable AWS credentials file") from None


def _missing(client: Any, bucket: str, where: str) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if _status(error) == 404:
            return True
        raise UserError(f"the object store at {where} refuses its owner's key: {_reason(error)}") from None
    except BotoCoreError as error:
        raise UserError(f"the object store at {where} does not answer: {error}") from None
    return False


def _opens(client: Any, bucket: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except ClientError:
        return False
    return True


def _grant(endpoint: str, bucket: str, owner_credentials: str, own_credentials: str) -> None:
    """Make MLflow's user through the admin API of MinIO, which Silo and RustFS have too (``mc admin user``)."""
    from minio.credentials.providers import StaticProvider
    from minio.error import MinioAdminException
    from minio.minioadmin import MinioAdmin
    from urllib3.exceptions import HTTPError

    key, secret = _keys(own_credentials)
    address = urlsplit(endpoint)
    admin = MinioAdmin(
        endpoint=address.netloc,
        credentials=StaticProvider(*_keys(owner_credentials)),
        secure=address.scheme == "https",
    )
    arn = f"arn:aws:s3:::{bucket}"
    statement = {"Effect": "Allow", "Action": ["s3:*"], "Resource": [arn, f"{arn}/*"]}
    try:
        admin.policy_add(POLICY, policy={"Version": "2012-10-17", "Statement": [statement]})
        admin.user_add(key, secret)
        admin.policy_set(POLICY, user=key)
    except (MinioAdminException, HTTPError) as error:
        raise UserError(
            f"the object store at {endpoint} does not let its owner make MLflow's key: {error}",
            "make a key for that bucket by hand, and take the store as an external one:",
            "invoke up --set object_store=external",
        ) from None


def _prove(client: Any, bucket: str, where: str) -> None:
    """Write, read and delete one small object with MLflow's key."""
    from botocore.exceptions import BotoCoreError, ClientError

    key = f".mlflow-stacks/{uuid.uuid4().hex}"
    try:
        client.put_object(Bucket=bucket, Key=key, Body=b"proof")
        client.get_object(Bucket=bucket, Key=key)["Body"].read()
        client.delete_object(Bucket=bucket, Key=key)
    except ClientError as error:
        raise UserError(
            f"MLflow's key does not open the bucket '{bucket}' at {where}: {_reason(error)}",
            "an external store needs the bucket and a key that may list, read, write and delete in it:",
            "settings s3_endpoint, s3_bucket, s3_access_key and s3_secret_key",
        ) from None
    except BotoCoreError as error:
        raise UserError(
            f"the object store at {where} does not answer: {error}",
            "look at the settings s3_endpoint and s3_region",
        ) from None


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _reason(error: ClientError) -> str:
    details = error.response.get("Error", {})
    return f"{details.get('Code', '?')} {details.get('Message', '')}".strip()


if __name__ == "__main__":
    with user_errors():
        prepare(
            os.environ["MLFLOW_ARTIFACTS_DESTINATION"],
            os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None,
            os.environ.get(OWNER) or None,
        )
