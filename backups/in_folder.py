"""Backup sets in a folder, their artifacts as files: unchanged ones are hard links to those of the last set."""

from __future__ import annotations

import errno
import os
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from artifacts.base import is_path
from backups import sets
from console import UserError
from database.lock import lock_beside
from files import disk_errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from artifacts import Store
    from artifacts.base import Fetched
    from backups.contract import Keeper
    from backups.sets import BackupSet, Entry

# What a file system says to a name that it cannot have (too long, not its encoding), or not beside another one:
# a file where a folder is, a folder where a file is, a name that differs in capitals alone.
_NO_NAME = {
    errno.ENAMETOOLONG,
    errno.EILSEQ,
    errno.EINVAL,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
}


class Folder:
    """A folder of sets; see `backups.places.Place` and `backups.sets`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def lock(self, purpose: str) -> AbstractContextManager[object]:
        """Two databases may share the folder."""
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        return lock_beside(self.path / "backups", purpose, 3600)

    def sets(self) -> tuple[Sequence[BackupSet], Sequence[str]]:
        """See `sets.list_sets`."""
        return sets.list_sets(self.path)

    def draft(self) -> AbstractContextManager[Path]:
        """See `sets.draft`."""
        return sets.draft(self.path)

    def keeper(self, folder: Path, last: BackupSet | None) -> Keeper:
        """Hard links."""
        return FolderKeeper(folder, last)

    def finish(self, folder: Path, manifest: dict[str, Any]) -> BackupSet:
        """See `sets.finish`."""
        return sets.finish(folder, manifest)

    def prune(self, source: str, keep: int) -> None:
        """See `sets.prune`."""
        sets.prune(self.path, source, keep)

    def open(self, backup: BackupSet) -> BackupSet:
        """They are files."""
        return backup


class FolderKeeper:
    """Keeps artifacts as files: under their own keys, or, where these can be no path, under ``renamed/``.

    See `backups.places.Keeper`.
    """

    def __init__(self, folder: Path, last: BackupSet | None) -> None:
        self._folder, self._last = folder, last
        (folder / sets.ARTIFACTS).mkdir()
        # asked once a folder, not once an object
        self._make = lru_cache(maxsize=4096)(lambda path: path.mkdir(parents=True, exist_ok=True))

    def link(self, old: Entry) -> bool:
        """Make a hard link; False when the old file is gone, cut short, or has too many of them."""
        if self._last is None:
            return False
        target = self._folder / old.place
        try:
            source = sets.inside(self._last, old.place)
            self._make(target.parent)
            if source.lstat().st_size != old.size:  # damaged since
                return False
            target.hardlink_to(source)
        except (OSError, UserError):
            return False
        return True

    def keep(self, store: Store, key: str) -> tuple[Fetched, str] | None:
        """Copy it to its own key, or to where another name leads."""
        if is_path(key):
            try:
                fetched = self._fetch(store, key, self._folder / sets.ARTIFACTS / key)
            except OSError as error:
                if error.errno not in _NO_NAME:
                    raise
            else:
                return (fetched, "") if fetched else None
        stored = f"{sets.RENAMED}/{sha256(os.fsencode(key)).hexdigest()}"
        fetched = self._fetch(store, key, self._folder / stored)
        return (fetched, stored) if fetched else None

    def _fetch(self, store: Store, key: str, target: Path) -> Fetched | None:
        self._make(target.parent)
        # a file of this name may be there on a file system to which capitals are small letters
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        fetched = None
        try:
            fetched = store.fetch(key, target)
        finally:
            if fetched is None:
                target.unlink(missing_ok=True)
        return fetched
