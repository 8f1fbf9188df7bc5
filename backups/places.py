"""Where backup sets are kept: a folder, or a prefix of an S3 bucket."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from backups import sets
from backups.in_folder import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backups.contract import Place
    from backups.sets import BackupSet


@contextmanager
def open_place(address: str) -> Iterator[Place]:
    """Give the place of an address: a folder, or ``s3://BUCKET/PREFIX``."""
    if not address.startswith("s3://"):
        yield Folder(Path(address))
        return
    from backups.in_s3 import open_bucket  # boto3 is slow to import

    with open_bucket(address) as bucket:
        yield bucket


@contextmanager
def open_backup(address: str) -> Iterator[BackupSet]:
    """Give the set of an address; ``latest`` as its last part is the newest one of that place.

    Raises:
        UserError: there is none.
    """
    if address.startswith("s3://"):
        from backups.in_s3 import open_bucket

        parent, _, name = address.rstrip("/").rpartition("/")
        with open_bucket(parent) as bucket:
            yield bucket.open_named(name)
        return
    path = Path(address).absolute()
    yield sets.open_set(sets.newest(path.parent) if path.name == sets.LATEST and not path.exists() else path)


@contextmanager
def beside(backup: BackupSet, *, wanted: bool) -> Iterator[Place | None]:
    """Give the place that a set lies in, for another one; None if that is not wanted."""
    if not wanted:
        yield None
        return
    with open_place(backup.where.rpartition("/")[0]) as place:
        yield place
