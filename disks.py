"""A full disk: whether an error means one, whether a folder has room, and what to say of it.

Beside nothing else of ours: `console` prints what stands here.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# The system's words, as databases and stores pass them on; SQLite's; what tempfile says when it cannot write anywhere.
_WORDS = re.compile(
    "no space left on device|disk quota exceeded|database or disk is full|no usable temporary directory",
    re.IGNORECASE,
)
RESERVE = 20 << 20  # bytes: a segment of PostgreSQL's log (16 MB), and what else it writes until it runs
_CHUNK = 1 << 20  # bytes
_PROBE = 1 << 16  # bytes: more than any small write needs
MEND = (
    "what frees some: invoke cleanup (what users deleted), invoke prune (images and environments of no use), "
    "or a set less of those that invoke backups lists"
)
_MEND_TEMPORARY = "or have temporary files elsewhere: TMPDIR=FOLDER"
_written: dict[Path, str] = {}  # places that this process writes to, and what frees room there
_known: dict[Path | str, tuple[Disk, str]] = {}  # disks that others have looked at, likewise


def writes_to(place: Path, mend: str = MEND) -> None:
    """Have a full disk named if it is that of `place`, with a line that says what frees room there."""
    _written[place.absolute()] = mend


def knows(disk: Disk, mend: str = MEND) -> None:
    """Have a disk named that this process does not see, such as a container's, as it was when somebody looked."""
    _known[disk.mount] = (disk, mend)


def is_full(error: BaseException) -> bool:
    """Whether an error means that a disk is full or a quota used up: this machine's, or one that a server told of."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return bool(_WORDS.search(str(getattr(error, "orig", None) or error)))


def has_room(folder: Path) -> bool:
    """Whether a small file can be written in a folder; it has no name, and is gone afterwards.

    Raises:
        OSError: the folder cannot be written for another reason.
    """
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            return file.write(b"\0" * _PROBE) == _PROBE
    except OSError as error:
        if is_full(error):
            return False
        raise


def set_aside(path: Path, *, spare: int = RESERVE) -> None:
    """Set room aside by a file of no content where that leaves `spare` bytes free; one that is there stays."""
    if path.exists() or not path.parent.is_dir() or Disk.of(path.parent).free < RESERVE + spare:
        return
    try:
        with path.open("wb") as file:
            for _ in range(0, RESERVE, _CHUNK):
                file.write(b"\0" * _CHUNK)
    except OSError:  # others took the room meanwhile
        path.unlink(missing_ok=True)


def give_up(path: Path) -> bool:
    """Let go what was set aside if no room is left there; whether it was."""
    if not path.exists() or has_room(path.parent):
        return False
    path.unlink()
    return True


@dataclass(frozen=True)
class Disk:
    """A file system: where it is mounted, bytes that are free and in all, and how many more files it takes.

    One that is not mounted on this machine has a name in place of a path.
    """

    mount: Path | str
    free: int
    total: int
    files_left: int | None

    @classmethod
    def of(cls, place: Path) -> Disk:
        """The one that holds a place, which need not exist yet."""
        place = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
        device = place.stat().st_dev
        mount = place
        while mount.parent.stat().st_dev == device and mount.parent != mount:
            mount = mount.parent
        status = os.statvfs(place)
        free, total = (blocks * status.f_frsize for blocks in (status.f_bavail, status.f_blocks))
        return cls(mount, free, total, status.f_favail if status.f_files else None)

    @property
    def full(self) -> bool:
        """Whether hardly anything more can be written."""
        return self.free < self.total / 1000 or self.files_left == 0

    def as_json(self) -> dict[str, Any]:
        """``folder`` where it is mounted, ``free`` and ``total`` in bytes, whether it is ``full``."""
        return {"folder": str(self.mount), "free": self.free, "total": self.total, "full": self.full}

    def __str__(self) -> str:
        from rich.filesize import decimal

        files = ", and no further file" if self.files_left == 0 else ""
        full = "full" if self.full else "not full"
        return f"{self.mount} is {full}: {decimal(self.free)} of {decimal(self.total)} are free{files}"


def written_to() -> dict[Path | str, tuple[Disk, str]]:
    """The file systems that this process writes to, or `knows`, by where they are; each with what frees room there."""
    mends = {**_written, Path.cwd(): MEND, _temporary(): _MEND_TEMPORARY}
    disks = dict(_known)
    for place, mend in mends.items():
        disk = Disk.of(place)
        disks.setdefault(disk.mount, (disk, mend))
    return disks


def explain(error: BaseException | None = None, place: Path | None = None) -> list[str]:
    """What to say of a full disk, a line each: which, how full it is, and what frees it.

    Args:
        error: one that `is_full`.
        place: what was being written, if the error does not say it. Without either, every file system that this
            process writes to is named if it is full.
    """
    named = error.filename if isinstance(error, OSError) and error.errno in FULL else None
    target = place or (Path(os.fsdecode(named)) if isinstance(named, (str, bytes)) else None)
    known = written_to()
    if target:
        disk = Disk.of(target)
        shown = [(disk, known.get(disk.mount, (disk, MEND))[1])]
    else:
        shown = [(disk, mend) for disk, mend in known.values() if disk.full]
    what = "over quota" if getattr(error, "errno", None) == errno.EDQUOT else "no space left"
    mounts = [str(disk.mount) for disk, _ in shown]
    where = ", ".join(mounts) or "the disk of the database or of the artifact store"
    lines = [line for disk, mend in shown for line in (str(disk), mend)]
    return [
        f"{what} on {where}" + (f", while writing {target}" if target else ""),
        *dict.fromkeys(lines or [MEND]),
    ]


def _temporary() -> Path:
    """The folder of temporary files, also where none can be written there."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108
