"""Room that is set aside for the day when a disk is full: deleting needs some before it frees any.

SQLite writes a journal, and PostgreSQL its log, before a row is gone; PostgreSQL writes a little even for a backup. So
`up` writes a file of no content beside the data. `cleanup` and `backup`, and an `up` that has to start PostgreSQL for
them, give it up when there is no room left, and write it anew once there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from console import note, size
from disks import Disk, has_room, writes_to

if TYPE_CHECKING:
    from pathlib import Path

    from stacks.definition.deployment import Deployment

NAME = "reserve"
SIZE = 20 << 20  # bytes: a segment of PostgreSQL's log (16 MB), and what else it writes until it runs
_CHUNK = 1 << 20  # bytes


def watch(deployment: Deployment) -> None:
    """Have a full disk of this deployment named, with what frees room on it."""
    for place in (deployment.state, deployment.postgres_data):
        writes_to(place, mend(deployment, f"its logs in {deployment.state / 'logs'}"))


def mend(deployment: Deployment, further: str) -> str:
    """What frees room where a deployment keeps its data; beside what always does, something `further`."""
    return (
        f"what frees some: invoke cleanup --stack={deployment.name} (what users deleted), invoke prune, {further}, "
        "or a set less of those that invoke backups lists"
    )


def keep(deployment: Deployment, *, spare: int = SIZE) -> None:
    """Set room aside where that leaves so many bytes free; what is set aside already stays as it is."""
    for path in _paths(deployment):
        if path.exists() or Disk.of(path.parent).free < SIZE + spare:
            continue
        try:
            with path.open("wb") as file:
                for _ in range(0, SIZE, _CHUNK):
                    file.write(b"\0" * _CHUNK)
        except OSError:  # others took the room meanwhile
            path.unlink(missing_ok=True)


def give_up(deployment: Deployment) -> None:
    """Let go what was set aside on disks that have no room left."""
    for path in _paths(deployment):
        if path.exists() and not has_room(path.parent):
            note(
                f"{path.parent} has no room left: the {size(SIZE)} that were set aside for this are used now"
            )
            path.unlink()


def remove(deployment: Deployment) -> None:
    """Remove it for good, with the data."""
    for path in _paths(deployment):
        path.unlink(missing_ok=True)


def on_disk_of(deployment: Deployment, place: Path) -> bool:
    """Whether a place is on a disk that holds data of the deployment."""
    return Disk.of(place).mount in {Disk.of(path.parent).mount for path in _paths(deployment)}


def _paths(deployment: Deployment) -> list[Path]:
    """One on each place of data; root's PostgreSQL has a place of its own."""
    folders = [deployment.state, deployment.postgres_data.parent]
    return [
        folder / NAME
        for folder in folders
        if folder.is_dir() and (folder == deployment.state or not folder.is_relative_to(deployment.state))
    ]
