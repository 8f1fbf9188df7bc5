"""Which store an artifact destination is."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from artifacts.base import Store, StoreError, without_password
from artifacts.local import LocalStore


def open_store(uri: str, *, timeout: float = 60.0) -> Store:
    """Return the store behind an artifact destination. Nothing is read or written yet.

    Args:
        uri: a path, ``file:///path``, ``s3://bucket/prefix``, or any URI that MLflow has a repository for.
        timeout: seconds that one request to a remote store may stay silent.

    Raises:
        StoreError: `uri` is no artifact destination: an ``mlflow-artifacts:`` or http address of a tracking
            server, a scheme that nothing here knows, or no bucket in an S3 URI.
    """
    parts = urlsplit(uri)
    if parts.scheme in {"", "file"}:
        if parts.netloc not in {"", "localhost"}:
            raise StoreError(f"'{uri}' names another host")
        path = unquote(parts.path) if parts.scheme else uri
        if not path:
            raise StoreError("the artifact destination is empty")
        return LocalStore(Path(path))
    if parts.scheme in {"s3", "s3a", "s3n"}:
        from artifacts.s3 import S3Store  # boto3 is slow to import

        if not parts.netloc:
            raise StoreError(f"'{uri}' names no bucket")
        return S3Store(parts.netloc, parts.path, timeout=timeout)
    if parts.scheme in {"mlflow-artifacts", "http", "https"}:
        raise StoreError(
            f"'{uri}' is a tracking server, not a store: give the server's --artifacts-destination instead"
        )
    from artifacts.repository import RepositoryStore  # mlflow is slow to import

    try:
        return RepositoryStore(uri)
    except Exception as error:  # MLflow and the client libraries raise many kinds
        raise StoreError(f"cannot open '{without_password(uri)}': {error}") from error
