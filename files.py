"""Files: hashed and on disk before they count, written whole or not at all, locked, with room for them.

One of each for the whole house.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from console import UserError, full_disk, note, size
from disks import explain, is_full

try:
    import fcntl
except ImportError:
    raise UserError("this runs on Linux and macOS", "on Windows: wsl --install; see: invoke doctor") from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHUNK = 1 << 20  # bytes
_POLL = 0.25  # seconds


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_file(path: Path) -> None:
    """Hold that a path is no folder, pipe or device: some of these are read for ever.

    Raises:
        OSError: it is one; what is not there is left to whoever reads it.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file", str(path))


def sync(path: Path) -> None:
    """Make sure that a file or a folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes, mode: int | None = None) -> None:
    """Write a file so that it is there whole or not at all, and on disk.

    Args:
        path: the file; what had its name is replaced in one step.
        content: all of it.
        mode: its permissions, which it has from its first byte on; by default those that the umask leaves.

    Raises:
        UserError: no space left, over quota, permission denied, read-only; the file is as it was.
    """
    temporary = path.with_name(f".{path.name}.new")
    with disk_errors(path):
        temporary.unlink(missing_ok=True)  # what a kill left, whoever could read it
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            with os.fdopen(os.open(temporary, flags, 0o666 if mode is None else 0o600), "wb") as file:
                file.write(content)
                file.flush()
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync(path.parent)


def write_if_changed(path: Path, content: bytes, mode: int) -> bool:
    """Write a file with `write_atomically` unless it is as asked for already.

    Returns:
        Whether it was written.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_mode & 0o777 == mode and path.read_bytes() == content:
            return False
    write_atomically(path, content, mode)
    return True


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
            *explain(place=folder)[2:],
        )


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into a message.

    Raises:
        UserError: no space left or over quota (see `console.full_disk`), permission denied, read-only.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise full_disk(error, place) from None
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise UserError(f"cannot write to {place}: {error.strerror}", f"see: ls -ld {place}") from None
        raise


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: a process of a host, for a purpose, since a time in seconds of the Unix epoch."""

    host: str
    pid: int
    purpose: str
    since: int

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{self.purpose} (process {self.pid} on {self.host}) since {since}"


def myself(purpose: str) -> Holder:
    """This process as the holder of a lock."""
    return Holder(socket.gethostname(), os.getpid(), purpose, int(time.time()))


def wait_for_lock(
    attempt: Callable[[], bool],
    holder: Callable[[], Holder | None],
    what: str,
    wait_seconds: float,
    refusal: Callable[[str], UserError],
) -> None:
    """Try to get a lock until it works or the time is over.

    Args:
        attempt: takes it, and says whether that worked.
        holder: who has it, where that is known.
        what: the lock, for the line that says what is waited for: ``the maintenance lock``.
        wait_seconds: how long to wait for another holder.
        refusal: the error, given who has it: ``held by backup (process 7 on host) since ...``.

    Raises:
        UserError: `refusal`'s, when the time is over.
    """
    deadline = time.monotonic() + wait_seconds
    told = False
    while not attempt():
        other = holder()
        who = f"held by {other}" if other else "held by another process"
        if time.monotonic() >= deadline:
            raise refusal(who)
        if not told:
            note(f"waiting up to {wait_seconds:.0f} s for {what}, {who}")
            told = True
        time.sleep(min(_POLL, max(0.0, deadline - time.monotonic())))


@contextmanager
def file_lock(
    path: Path, purpose: str, refusal: Callable[[str], UserError], *, what: str = "", wait_seconds: float = 0
) -> Iterator[Callable[[], bool]]:
    """Hold a lock file inside the block; it ends with the process that holds it, however that ends.

    On a full disk the lock holds all the same; only who has it is not told then.

    Args:
        path: the lock file, which stays: removing it would let two processes lock two files.
        purpose: what for, shown to whoever finds it taken.
        refusal: the error when another process has it; see `wait_for_lock`.
        what: the lock in words; by default the file's name.
        wait_seconds: how long to wait for another holder.

    Yields:
        A function that says whether it is still held: somebody may have removed the file, and locked a new one.

    Raises:
        UserError: another process holds it, or it cannot be opened.
    """
    with disk_errors(path):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)  # as the umask says
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise UserError(f"cannot open the lock file {path}: {error.strerror}") from None

    def attempt() -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def holder() -> Holder | None:
        for _ in range(20):  # it is written a moment after the lock is taken
            with contextlib.suppress(OSError, ValueError, TypeError):
                return Holder(**json.loads(path.read_text()))
            time.sleep(0.05)
        return None

    def still_held() -> bool:
        try:
            return path.stat().st_ino == os.fstat(descriptor).st_ino
        except OSError:
            return False

    try:
        wait_for_lock(attempt, holder, what or f"the lock {path}", wait_seconds, refusal)
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(myself(purpose))).encode(), 0)
        yield still_held
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
