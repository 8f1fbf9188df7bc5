"""Files of a backup set: hashed while they are written, on disk before they count."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from console import UserError, size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 1 << 20  # bytes


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Make sure that a file or a folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def write_if_room(descriptor: int, content: bytes) -> None:
    """Replace what an open file holds, as who holds a lock; on a full disk it is left empty, and the lock holds."""
    os.ftruncate(descriptor, 0)
    try:
        os.pwrite(descriptor, content, 0)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        os.ftruncate(descriptor, 0)


def require_room(folder: Path, needed: int, purpose: str) -> None:
    """Refuse to start what the disk cannot hold.

    Args:
        folder: an existing folder of the file system in question.
        needed: bytes.
        purpose: for the message: ``a copy of the database``.

    Raises:
        UserError: too little is free.
    """
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise UserError(
            f"not enough room in {folder}: {purpose} needs {size(needed)}, free are {size(free)}",
            "make room there, or choose another place; nothing was changed",
        )


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into a message.

    Raises:
        UserError: no space left, over quota, permission denied, read-only.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise UserError(
                f"no space left while writing to {place}", "make room, or give another place with --to=FOLDER"
            ) from None
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise UserError(f"cannot write to {place}: {error.strerror}", f"see: ls -ld {place}") from None
        raise
