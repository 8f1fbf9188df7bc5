"""Artifacts in S3 or anything that speaks its protocol."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from artifacts.base import (
    Fetched,
    Store,
    StoredObject,
    StoreError,
    UnreadableError,
    batches,
    copy_hashed,
    folder,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from boto3.session import Session
    from mypy_boto3_s3.client import S3Client


def reach(endpoint: str) -> None:
    """Find out whether somebody listens at a store's address, at once: boto3 tries again with growing pauses.

    Raises:
        OSError: nobody does.
    """
    address = urlsplit(endpoint)
    port = address.port or {"https": 443}.get(address.scheme, 80)
    socket.create_connection((address.hostname or "", port), timeout=5).close()


def _timestamp(text: str) -> datetime:
    from botocore.utils import parse_timestamp

    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        parsed: datetime = parse_timestamp(text)
        return parsed


def _session() -> Session:
    """Return a session that reads ISO times itself: botocore's way takes more than half of the time of a listing."""
    import boto3
    from botocore.session import get_session

    session = get_session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    return boto3.Session(botocore_session=session)


def s3_client(
    *, timeout: float = 60.0, threads: int = 8, session: Session | None = None, endpoint: str | None = None
) -> S3Client:
    """Return a client that finds its endpoint, keys and region where MLflow's own does.

    The environment variables are those of ``mlflow.store.artifact.s3_artifact_repo``:
    ``MLFLOW_S3_ENDPOINT_URL``, ``MLFLOW_S3_IGNORE_TLS``, ``MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE``, and what
    boto3 reads itself (``AWS_SHARED_CREDENTIALS_FILE``, ``AWS_PROFILE``, ``AWS_REGION``, ...).

    Args:
        timeout: seconds that one request may stay silent.
        threads: how many threads will share the client.
        session: with other keys than these variables name.
        endpoint: for a `session`, its store's address; None is AWS.
    """
    from botocore.config import Config

    addressing: Any = os.environ.get("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "auto")
    ignore_tls = os.environ.get("MLFLOW_S3_IGNORE_TLS", "").lower() in {"true", "1"}
    return (session or _session()).client(
        "s3",
        endpoint_url=endpoint if session else os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None,
        verify=False if ignore_tls else None,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": addressing},
            connect_timeout=min(timeout, 10.0),
            read_timeout=timeout,
            # 503 SlowDown, connection resets and time-outs are tried again with a growing pause
            retries={"mode": "standard", "total_max_attempts": 5},
            max_pool_connections=threads + 2,
            # servers other than Amazon's rarely know the newer checksums
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


class S3Store(Store):
    """The objects of one bucket whose keys begin with one prefix."""

    sorted = True  # ListObjectsV2 in general purpose buckets (Amazon S3 API reference)

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        timeout: float = 60.0,
        threads: int = 8,
        client: S3Client | None = None,
    ) -> None:
        self._bucket = bucket
        self._prefix = folder(prefix.strip("/"))
        self._threads = threads
        self._client = client or s3_client(timeout=timeout, threads=threads)
        owner = os.environ.get("MLFLOW_S3_EXPECTED_BUCKET_OWNER")
        self._owner: dict[str, Any] = {"ExpectedBucketOwner": owner} if owner else {}
        self.uri = f"s3://{bucket}/{self._prefix}".rstrip("/")

    def _pages(self, prefix: str, *, delimiter: str = "", after: str = "") -> Iterator[Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket,
            Prefix=self._prefix + folder(prefix),
            Delimiter=delimiter,
            StartAfter=self._prefix + after if after else "",
            **self._owner,
        )
        try:
            yield from pages
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"cannot list {self.uri}/{prefix}: {error}") from error

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[StoredObject]:
        """List with ListObjectsV2, one page in memory at a time. See `Store.list`."""
        for page in self._pages(prefix, after=after):
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(self._prefix)
                if key:
                    yield StoredObject(key, item["Size"], item["LastModified"].timestamp())

    def folders(self, prefix: str = "") -> Iterator[str]:
        """List common prefixes. See `Store.folders`."""
        for page in self._pages(prefix, delimiter="/"):
            for item in page.get("CommonPrefixes", ()):
                yield item["Prefix"].removesuffix("/").rpartition("/")[2]

    def delete(self, keys: Iterable[str]) -> dict[str, str]:
        """Delete with DeleteObjects, up to 1,000 keys a request, several requests at a time.

        DeleteObjects answers 200 even when keys could not be deleted and lists those in its body
        (Amazon S3 API reference, DeleteObjects): these count as errors. See `Store.delete`.
        """
        groups = batches(keys, self.batch_size)
        first, second = next(groups, []), next(groups, [])
        if not second:
            return self._delete_batch(first)
        errors: dict[str, str] = {}
        with ThreadPoolExecutor(self._threads, thread_name_prefix="s3-delete") as pool:
            # a round of batches at a time: `keys` may be an endless stream
            for some in batches(chain([first, second], groups), self._threads):
                for failed in pool.map(self._delete_batch, some):
                    errors |= failed
        return errors

    def fetch(self, key: str, target: Path) -> Fetched | None:
        """Download with GetObject. See `Store.fetch`."""
        from botocore.exceptions import BotoCoreError, ClientError

        for attempt in range(3):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, **self._owner)
                with target.open("wb") as copy:
                    return copy_hashed(answer["Body"].iter_chunks(1 << 20), copy)
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code")
                if code in {"NoSuchKey", "404"}:
                    return None
                if code == "InvalidObjectState":  # in an archive (Amazon S3 API reference, GetObject)
                    raise UnreadableError(key, "archived by its store") from None
                raise StoreError(f"cannot read {self.uri}/{key}: {error}") from error
            except BotoCoreError as error:  # a connection that broke while the body was read
                if attempt == 2:
                    raise StoreError(f"cannot read {self.uri}/{key}: {error}") from error
        return None

    def holds(self, key: str) -> bool:
        """UTF-8 of at most 1,024 bytes (Amazon S3 user guide, "Object key naming guidelines")."""
        try:
            return len(f"{self._prefix}{key}".encode()) <= 1024
        except UnicodeEncodeError:
            return False

    def put(self, source: Path, key: str, modified: float | None) -> None:  # noqa: ARG002 - S3 sets its own time
        """Upload, in parts where the file is large. See `Store.put`."""
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client.upload_file(
                str(source), self._bucket, self._prefix + key, ExtraArgs=self._owner or None
            )
        except (S3UploadFailedError, BotoCoreError, ClientError) as error:
            raise StoreError(f"cannot write {self.uri}/{key}: {error}") from error

    def _delete_batch(self, keys: Sequence[str]) -> dict[str, str]:
        from botocore.exceptions import BotoCoreError, ClientError

        if not keys:
            return {}
        try:
            answer = self._client.delete_objects(
                Bucket=self._bucket,
                Delete={"Objects": [{"Key": self._prefix + key} for key in keys], "Quiet": True},
                **self._owner,
            )
        except (BotoCoreError, ClientError) as error:
            return dict.fromkeys(keys, str(error))
        errors = {}
        for failed in answer.get("Errors", ()):
            if failed.get("Code") == "NoSuchKey":
                continue
            key = failed.get("Key", "").removeprefix(self._prefix)
            errors[key] = f"{failed.get('Code')}: {failed.get('Message')}"
        return errors
