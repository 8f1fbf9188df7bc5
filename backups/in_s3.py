"""Backup sets in S3.

PREFIX/20260101T000000Z/...      a set as in a folder, but without ``artifacts/``; the manifest is uploaded last
PREFIX/objects/ab/abcdef...      every artifact once, named by its SHA-256: a set's list refers to it

An unchanged artifact is not read again: the new set's list names the object that the last set's does. `prune` removes
objects that no set names once they are a week old; a younger one may belong to a backup that has not ended yet.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts import StoreError
from artifacts.s3 import S3Store, s3_client
from backups import sets
from backups.manifest import MANIFEST, signed
from console import UserError, note
from database.address import redact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from boto3.session import Session
    from mypy_boto3_s3.client import S3Client

    from artifacts import Store
    from artifacts.base import Fetched
    from backups.sets import BackupSet, Entry

OBJECTS = "objects"
GRACE = 7 * 86_400.0  # seconds
# What the bucket of the backups needs where the stack's own store, or MLflow's, has other keys and another address.
ENDPOINT, PROFILE, CREDENTIALS, REGION = (
    "BACKUP_S3_ENDPOINT_URL",
    "BACKUP_AWS_PROFILE",
    "BACKUP_AWS_SHARED_CREDENTIALS_FILE",
    "BACKUP_AWS_REGION",
)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise UserError(
            f"backups: {redact(str(error))}",
            f"its keys: as for the aws command, or {PROFILE}; its address: AWS_ENDPOINT_URL, or {ENDPOINT}",
        ) from None


@contextmanager
def open_bucket(address: str) -> Iterator[Bucket]:
    """Give the sets below ``s3://BUCKET/PREFIX``, with a folder for what is fetched.

    Raises:
        UserError: there are no keys for it.
    """
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    if not bucket:
        raise UserError(f"'{address}' names no bucket", "for example: --to=s3://our-backups/mlflow")
    with tempfile.TemporaryDirectory(prefix="mlflow-stacks-") as scratch, _errors():
        yield Bucket(S3Store(bucket, prefix, client=_client(_session())), Path(scratch))


def _session() -> Session:
    """Return a session with the keys of the backups' bucket: those boto3 finds, or what ``BACKUP_...`` says instead."""
    import boto3
    from botocore.exceptions import ProfileNotFound

    try:
        session = boto3.Session(
            profile_name=os.environ.get(PROFILE) or None, region_name=os.environ.get(REGION) or None
        )
    except ProfileNotFound as error:
        raise UserError(f"backups: {error}", f"{PROFILE} names a profile of ~/.aws/credentials") from None
    if file := os.environ.get(CREDENTIALS):
        keys = json.loads(Path(file).read_text())
        session = boto3.Session(**keys, region_name=os.environ.get(REGION) or None)
    return session


def _client(session: Session) -> S3Client:
    given = os.environ.get(ENDPOINT) or None
    known = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return s3_client(
        session=session, endpoint=given or known or os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None
    )


def surroundings(folder: Path) -> dict[str, str]:
    """Resolve the keys that this process finds, for a process that has other ones in its environment.

    Args:
        folder: a closed folder for the keys.

    Returns:
        The variables that tell `_session` of them.

    Raises:
        UserError: there are none.
    """
    from botocore.exceptions import BotoCoreError

    session = _session()
    try:
        credentials = session.get_credentials()
        keys = credentials.get_frozen_credentials() if credentials else None
    except BotoCoreError:
        keys = None
    if keys is None:
        raise UserError(
            "backups: there are no keys for the bucket",
            f"as for the aws command: ~/.aws/credentials and AWS_PROFILE, or {PROFILE}",
        ) from None
    file = folder / "keys.json"
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    file.touch(mode=0o600)
    file.write_text(json.dumps(dict(zip(names, keys[:3], strict=True))))
    meta = _client(session).meta
    return {CREDENTIALS: str(file), ENDPOINT: meta.endpoint_url, REGION: meta.region_name or "us-east-1"}


class Bucket:
    """See `backups.places.Place`."""

    def __init__(self, store: S3Store, scratch: Path) -> None:
        self._store, self._scratch = store, scratch

    def lock(self, purpose: str) -> AbstractContextManager[object]:
        """None is needed: names of objects come from their content, and only old ones are removed."""
        del purpose
        return nullcontext()

    def sets(self) -> tuple[list[BackupSet], list[str]]:
        """Read every manifest."""
        listed, rest = [], []
        with _errors():
            for name in self._store.folders():
                if name != OBJECTS:
                    try:
                        listed.append(self._manifest(name))
                    except UserError as error:
                        rest.append(error.message)
        return sorted(listed, key=lambda backup: (backup.manifest["created"], backup.path.name)), rest

    def _manifest(self, name: str) -> BackupSet:
        address = f"{self._store.uri}/{name}"
        file = self._scratch / name / MANIFEST
        file.parent.mkdir(exist_ok=True)
        known = f"to see the sets there are: invoke backups --to={self._store.uri}"
        if self._store.fetch(f"{name}/{MANIFEST}", file) is None:
            raise UserError(f"{address} is not a backup: it has no {MANIFEST}", known)
        try:
            manifest = json.loads(file.read_bytes())
        except ValueError as error:
            raise UserError(
                f"cannot read the manifest of {address}: {error}", "use another backup", known
            ) from None
        return sets.checked(file.parent, address, manifest)

    def open_named(self, name: str) -> BackupSet:
        """Return a set by its name, or the newest one by ``latest``, with its small parts fetched.

        Raises:
            UserError: there is none.
        """
        if name == sets.LATEST:
            listed, rest = self.sets()
            if not listed:
                raise UserError(f"there is no backup in {self._store.uri}", *rest, "take one: invoke backup")
            return self.open(listed[-1])
        with _errors():
            return self.open(self._manifest(name))

    def open(self, backup: BackupSet) -> BackupSet:
        """Fetch all but the artifacts."""
        names = [part["file"] for part in backup.databases.values()]
        names += [f"keys/{key['name']}" for key in backup.manifest["keys"]]
        if backup.artifacts:
            names.append(backup.artifacts["list"])
        with _errors():
            for name in names:
                target = backup.path / name
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._store.fetch(
                    f"{backup.path.name}/{name}", target
                )  # one that is missing, `sets.verify` finds
        return sets.BackupSet(backup.path, backup.manifest, backup.address, self._fetch_artifact)

    def _fetch_artifact(self, entry: Entry, target: Path) -> bool:
        with _errors():
            fetched = self._store.fetch(_object(entry.sha256), target)
        if fetched and fetched.sha256 != entry.sha256:
            raise UserError(
                f"the backup is damaged: the SHA-256 of artifacts/{entry.key} does not fit",
                f"use another one: invoke backups --to={self._store.uri}",
            )
        return fetched is not None

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Nothing of it is in the bucket until it is finished, but for artifacts."""
        with tempfile.TemporaryDirectory(prefix="draft-", dir=self._scratch) as name:
            yield Path(name)

    def keeper(self, folder: Path, last: BackupSet | None) -> BucketKeeper:
        """By reference."""
        there = set()
        with _errors():
            if last and last.artifacts:
                self._store.fetch(
                    f"{last.path.name}/{last.artifacts['list']}", last.path / last.artifacts["list"]
                )
                there = {item.key.rpartition("/")[2] for item in self._store.list(OBJECTS)}
        return BucketKeeper(self._store, folder, there)

    def finish(self, folder: Path, manifest: dict[str, Any]) -> BackupSet:
        """Upload the parts, the manifest last."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        with _errors():
            taken, name, number = set(self._store.folders()), stamp, 1
            while name in taken:
                number += 1
                name = f"{stamp}-{number}"
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                self._store.put(path, f"{name}/{path.relative_to(folder)}", None)
            file = folder / MANIFEST
            file.write_text(json.dumps(signed(manifest), indent=1) + "\n")
            self._store.put(file, f"{name}/{MANIFEST}", None)
            return self._manifest(name)

    def prune(self, source: str, keep: int) -> None:
        """Remove old sets of one database, then what no set names, as in the module's docstring."""
        listed, _ = self.sets()
        old = [backup for backup in listed if backup.database["source"] == source][: -max(1, keep)]
        kept = [backup for backup in listed if backup not in old]
        with _errors():
            for backup in old:
                self._delete([f"{backup.path.name}/{MANIFEST}"])  # first: half a set must not look like one
                self._delete(
                    [f"{backup.path.name}/{part.key}" for part in self._store.list(backup.path.name)]
                )
                note(f"pruned {backup.where}")
            if old:
                self._delete(self._unnamed(kept))

    def _unnamed(self, kept: list[BackupSet]) -> list[str]:
        """The old objects that no set names, and the old parts of sets without a manifest."""
        named, names = set(), {backup.path.name for backup in kept}
        for backup in kept:
            if backup.artifacts:
                self._store.fetch(
                    f"{backup.path.name}/{backup.artifacts['list']}", backup.path / backup.artifacts["list"]
                )
                named |= {_object(entry.sha256) for entry in sets.entries(backup)}
        before = time.time() - GRACE
        return [
            item.key
            for item in self._store.list()
            if (item.modified or before) < before
            and item.key not in named
            and item.key.partition("/")[0] not in names
        ]

    def _delete(self, keys: list[str]) -> None:
        for key, reason in self._store.delete(keys).items():
            note(f"not pruned: {self._store.uri}/{key}: {reason}")


class BucketKeeper:
    """See `backups.places.Keeper`."""

    def __init__(self, store: S3Store, folder: Path, there: set[str]) -> None:
        self._store, self._folder, self._there = store, folder, there

    def link(self, old: Entry) -> bool:
        """It is there already under its hash."""
        return old.sha256 in self._there

    def keep(self, store: Store, key: str) -> tuple[Fetched, str] | None:
        """Copy it through a file: its name is not known before its end. No name of an object leads to it."""
        with tempfile.TemporaryDirectory(prefix="object-", dir=self._folder.parent) as name:
            file = Path(name) / "object"
            fetched = store.fetch(key, file)
            if fetched:
                with _errors():
                    self._store.put(file, _object(fetched.sha256), None)
        return (fetched, "") if fetched else None


def _object(digest: str) -> str:
    return f"{OBJECTS}/{digest[:2]}/{digest}"
