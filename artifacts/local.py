"""Artifacts in a local directory."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from functools import lru_cache
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.base import (
    Fetched,
    Store,
    StoredObject,
    StoreError,
    UnreadableError,
    chunks,
    copy_hashed,
    folder,
    is_path,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


NAME_MAX = 255  # bytes of one name on every file system of Linux and macOS that artifacts lie on
_UNREADABLE = {errno.ELOOP, errno.EACCES, errno.EPERM, errno.EIO, errno.ENXIO, errno.ESTALE, errno.ENODEV}


def kind_of(mode: int) -> str:
    """Return what a file is, from its ``st_mode``; see `StoredObject`."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISLNK(mode):
        return "symbolic link"
    if stat.S_ISFIFO(mode):
        return "FIFO"
    return "socket" if stat.S_ISSOCK(mode) else "device"


class LocalStore(Store):
    """A directory tree. Symbolic links are objects here: listed and deleted, never followed."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.uri = str(self._root)
        # thousands of files lie in one folder, and resolving it costs more than copying a small file
        self._inside = lru_cache(maxsize=4096)(self._check_inside)

    def _below(self, path: str) -> Path:
        """Return the absolute path of `path`, without a symbolic link on the way to it.

        Raises:
            StoreError: a folder on the way is a symbolic link, so the path may lead out of the store.
        """
        target = self._root / path
        parent = str(target.parent)
        if os.path.realpath(parent) != parent:
            raise StoreError(f"'{path}' in {self.uri} lies behind a symbolic link")
        return target

    def _check_inside(self, parent: Path) -> None:
        if parent.resolve() != parent:
            raise StoreError(f"'{parent}' in {self.uri} lies behind a symbolic link")

    def _scan(self, prefix: str) -> Iterator[os.DirEntry[str]]:
        path = self._below(prefix) if prefix else self._root
        try:
            if path.is_symlink():
                raise StoreError(f"'{prefix}' in {self.uri} is a symbolic link")
            with os.scandir(path) as entries:
                yield from entries
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise StoreError(f"cannot list {path}: {error.strerror}") from error

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[StoredObject]:
        """Walk the folder `prefix`, one directory in memory at a time. See `Store.list`."""
        del after  # not sorted
        waiting = [folder(prefix)]
        while waiting:
            here = waiting.pop()
            for entry in self._scan(here):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{here}{entry.name}/")
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # deleted while we were looking
                kind = kind_of(status.st_mode)
                yield StoredObject(f"{here}{entry.name}", status.st_size, status.st_mtime, kind)

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the subdirectories of `prefix`. See `Store.folders`."""
        for entry in self._scan(folder(prefix)):
            if entry.is_dir(follow_symlinks=False):
                yield entry.name

    def missing(self, folders: Iterable[str]) -> set[str]:
        """Look once into each folder around them. See `Store.missing`."""
        gone = set()
        for parent, group in groupby(sorted(folders), key=lambda name: name.rstrip("/").rpartition("/")[0]):
            siblings = list(group)
            try:
                there = {entry.name for entry in self._scan(parent)} if len(siblings) > 1 else None
            except StoreError:
                there = None
            if there is not None:
                gone |= {name for name in siblings if name.rstrip("/").rpartition("/")[2] not in there}
        return gone

    def delete(self, keys: Iterable[str]) -> dict[str, str]:
        """Unlink the files. See `Store.delete`."""
        errors = {}
        for key in keys:
            try:
                if not is_path(key):
                    raise StoreError("no path below the artifact destination")
                self._below(key).unlink(missing_ok=True)
            except NotADirectoryError:
                continue
            except (OSError, StoreError) as error:
                errors[key] = getattr(error, "strerror", None) or str(error)
        return errors

    def fetch(self, key: str, target: Path) -> Fetched | None:
        """Copy a file, again if it changes meanwhile. See `Store.fetch`."""
        source = self._root / key
        self._inside(source.parent)
        for _ in range(3):
            try:
                # O_NONBLOCK: a FIFO would let us wait for its writer
                descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno in _UNREADABLE:
                    raise UnreadableError(key, os.strerror(error.errno).lower()) from None
                raise StoreError(f"cannot read {source}: {error.strerror}") from error
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                os.close(descriptor)
                raise UnreadableError(key, kind_of(before.st_mode))
            with os.fdopen(descriptor, "rb", buffering=0) as file, target.open("wb") as copy:
                fetched = copy_hashed(chunks(file), copy)
                after = os.fstat(descriptor)
            if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
                break
        return fetched

    def holds(self, key: str) -> bool:
        """See `Store.holds`."""
        return is_path(key) and all(len(os.fsencode(part)) <= NAME_MAX for part in key.split("/"))

    def put(self, source: Path, key: str, modified: float | None) -> None:
        """Copy a file in beside its place, then rename it. See `Store.put`."""
        if not is_path(key):
            raise StoreError(f"'{key}' is no path below the artifact destination")
        target = self._root / key
        # as short for any name, and the same each time: what a kill left is written again
        temporary = target.with_name(f".{sha256(os.fsencode(target.name)).hexdigest()[:32]}.new")
        try:
            self._inside(target.parent)
            try:
                shutil.copyfile(source, temporary)
            except FileNotFoundError:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, temporary)
            if modified is not None:
                os.utime(temporary, (modified, modified))
            temporary.replace(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StoreError(f"cannot write {target}: {error.strerror}") from error

    def prune(self, prefix: str) -> None:
        """Remove empty directories from the bottom up. See `Store.prune`."""
        try:
            path = self._root / folder(prefix)
            if not stat.S_ISDIR(path.lstat().st_mode) or path == self._root:
                return
            self._below(folder(prefix))
        except (OSError, StoreError):
            return
        for directory, _, _ in os.walk(path, topdown=False, followlinks=False):
            try:
                Path(directory).rmdir()
            except OSError:  # not empty, or gone: both are fine
                continue
