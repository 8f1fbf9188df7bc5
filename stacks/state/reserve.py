"""Room that is set aside for the day when a disk is full: deleting needs some before it frees any.

SQLite writes a journal, and PostgreSQL its log, before a row is gone; PostgreSQL writes a little even for a backup. So
`up` writes a file of no content beside the data. `cleanup` and `backup`, and an `up` that has to start PostgreSQL for
them, give it up when there is no room left, and write it anew once there is; so does a cleanup at its times
(`cleanup.schedule`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import disks
from console import note, size
from disks import RESERVE, Disk, set_aside, writes_to
from stacks.definition.services import SERVICES

if TYPE_CHECKING:
    from pathlib import Path

    from stacks.definition.deployment import Deployment


def watch(deployment: Deployment) -> None:
    """Have a full disk of this deployment named, with what frees room on it."""
    stores = [deployment.state / folder for name in deployment.services for folder in SERVICES[name].folders]
    for place in (deployment.state, deployment.postgres_data, *stores):
        writes_to(place, mend(deployment, f"its logs in {deployment.state / 'logs'}"))


def mend(deployment: Deployment, further: str) -> str:
    """What frees room where a deployment keeps its data; beside what always does, something `further`."""
    return (
        f"what frees some: invoke cleanup --stack={deployment.name} (what users deleted), invoke prune, {further}, "
        "or a set less of those that invoke backups lists"
    )


def keep(deployment: Deployment, *, spare: int = RESERVE) -> None:
    """Set room aside where that leaves so many bytes free; what is set aside already stays as it is."""
    for path in deployment.reserves:
        set_aside(path, spare=spare)


def give_up(deployment: Deployment) -> None:
    """Let go what was set aside on disks that have no room left."""
    for path in filter(disks.give_up, deployment.reserves):
        note(f"{path.parent} has no room left: the {size(RESERVE)} that were set aside for this are used now")


def remove(deployment: Deployment) -> None:
    """Remove it for good, with the data."""
    for path in deployment.reserves:
        path.unlink(missing_ok=True)


def on_disk_of(deployment: Deployment, place: Path) -> bool:
    """Whether a place is on a disk that holds data of the deployment."""
    return Disk.of(place).mount in {
        Disk.of(path.parent).mount for path in deployment.reserves if path.parent.is_dir()
    }
