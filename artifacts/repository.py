"""Artifacts in any store that MLflow has an artifact repository for (Azure, Google, HDFS, SFTP, ...)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from artifacts.base import (
    Fetched,
    Store,
    StoredObject,
    StoreError,
    chunks,
    copy_hashed,
    folder,
    is_safe_key,
    without_password,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class RepositoryStore(Store):
    """What ``mlflow.store.artifact.artifact_repository_registry`` finds for a URI.

    It tells no modification times and deletes object by object: slower than `S3Store`, and nothing here is
    ever old enough to count as an orphan.
    """

    def __init__(self, uri: str) -> None:
        from mlflow.store.artifact.artifact_repository_registry import (
            get_artifact_repository,
        )

        self._repository: Any = get_artifact_repository(uri)
        self.uri = without_password(uri)

    def _entries(self, prefix: str) -> list[Any]:
        try:
            entries: list[Any] = self._repository.list_artifacts(prefix.removesuffix("/") or None)
        except Exception as error:  # every repository raises what its own client library raises
            raise StoreError(f"cannot list {self.uri}/{prefix}: {error}") from error
        return entries

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[StoredObject]:
        """Walk the folders one by one. See `Store.list`."""
        del after  # not sorted
        waiting = [folder(prefix)]
        while waiting:
            for entry in self._entries(waiting.pop()):
                if entry.is_dir:
                    waiting.append(folder(entry.path))
                else:
                    yield StoredObject(entry.path, entry.file_size or 0, None)

    def folders(self, prefix: str = "") -> Iterator[str]:
        """See `Store.folders`."""
        for entry in self._entries(folder(prefix)):
            if entry.is_dir:
                yield entry.path.rstrip("/").rpartition("/")[2]

    def fetch(self, key: str, target: Path) -> Fetched | None:
        """Download through a temporary folder. See `Store.fetch`."""
        with TemporaryDirectory(dir=target.parent) as name:
            try:
                downloaded = Path(self._repository.download_artifacts(key, name))
            except Exception as error:
                if not self._is_there(key):
                    return None
                raise StoreError(f"cannot read {self.uri}/{key}: {error}") from error
            with downloaded.open("rb") as file, target.open("wb") as copy:
                return copy_hashed(chunks(file), copy)

    def put(self, source: Path, key: str, modified: float | None) -> None:  # noqa: ARG002 - not for us to set
        """Upload under the right name. See `Store.put`."""
        parent, _, name = key.rpartition("/")
        with TemporaryDirectory() as folder_name:
            named = Path(folder_name) / name
            named.symlink_to(source.absolute())
            try:
                self._repository.log_artifact(str(named), parent or None)
            except Exception as error:
                raise StoreError(f"cannot write {self.uri}/{key}: {error}") from error

    def delete(self, keys: Iterable[str]) -> dict[str, str]:
        """Delete object by object. See `Store.delete`."""
        return {key: reason for key in keys if (reason := self._delete_one(key))}

    def _delete_one(self, key: str) -> str | None:
        if not is_safe_key(key):
            return "no path below the artifact destination"
        try:
            self._repository.delete_artifacts(key)
        except Exception as error:  # as above
            # some repositories raise for an object that is gone, so look before calling it an error
            try:
                gone = not self._is_there(key)
            except StoreError:
                gone = False
            return None if gone else str(error) or type(error).__name__
        return None

    def _is_there(self, key: str) -> bool:
        return any(entry.path == key for entry in self._entries(key.rpartition("/")[0]))
