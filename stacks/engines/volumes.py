"""The volumes of a stack on Compose: how full their disks are, and room set aside in those that hold a database.

They lie wherever the Docker engine keeps them, often where this user or even this machine cannot look; so they are
looked at from inside the containers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from console import note, size
from disks import RESERVE, Disk, knows
from stacks.definition.deployment import RESERVE_NAME
from stacks.definition.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

# Of a shell in the folder. There is hardly any room where 64 kB cannot be written.
_GIVE_UP = """
cd {folder} && [ -f {name} ] || exit 0
dd if=/dev/zero of=.room bs=65536 count=1 2> /dev/null || {{ rm -f {name}; echo given; }}
rm -f .room
"""
_KEEP = """
cd {folder} && [ ! -e {name} ] || exit 0
free=$(df -Pk . | awk 'NR == 2 {{ print $4 }}')
[ "$free" -ge {needed} ] || exit 0
dd if=/dev/zero of={name} bs=1048576 count={count} 2> /dev/null || rm -f {name}
"""


@dataclass(frozen=True)
class Volumes:
    """Those of one deployment.

    Attributes:
        mend: what frees room on them.
        run: runs a script by the shell of a service's image, with the volumes of that service; what it printed, or
            None if it failed.
    """

    mend: str
    run: Callable[[str, str], str | None]

    def measure(self, containers: Mapping[str, Any]) -> list[Disk]:
        """How full their disks are, which `disks` knows from then on; the volumes of one disk are named together.

        Args:
            containers: service to what ``docker inspect`` says of its container; the volumes of one that has ended
                are looked at only where they hold a database.
        """
        names: dict[tuple[str, int], list[str]] = {}
        free: dict[tuple[str, int], int] = {}
        for service, info in containers.items():
            volumes = {
                mount["Destination"]: mount["Name"] for mount in info["Mounts"] if mount["Type"] == "volume"
            }
            for folder, (device, total, left) in self._sizes(service, info, volumes).items():
                place = (device, total)
                names.setdefault(place, [])
                if volumes[folder] not in names[place]:
                    names[place].append(volumes[folder])
                free[place] = left
        disks = [Disk(f"volume {', '.join(names[place])}", free[place], place[1], None) for place in names]
        for disk in disks:
            knows(disk, self.mend)
        return disks

    def _sizes(self, service: str, info: Any, volumes: Mapping[str, str]) -> dict[str, tuple[str, int, int]]:
        """Folder to the name of its device, and bytes in all and free; empty where the container does not tell."""
        folders = list(volumes)
        if not is_up(info):
            folders = [folder for folder in folders if folder == SERVICES[service].database]
        if not folders:
            return {}
        table = self.run(service, f"df -Pk {' '.join(folders)}") or ""
        rows = [row.rsplit(maxsplit=5) for row in table.splitlines()[1:]]
        return {row[5]: (row[0], int(row[1]) * 1024, int(row[3]) * 1024) for row in rows if row[5] in volumes}

    def give_up(self, services: Iterable[str]) -> None:
        """Let go what was set aside where no room is left."""
        for service in services:
            if self.run(service, _GIVE_UP.format(folder=SERVICES[service].database, name=RESERVE_NAME)):
                note(
                    f"the volume of '{service}' has no room left: the {size(RESERVE)} that were set aside for "
                    "this are used now"
                )

    def keep(self, services: Iterable[str], *, spare: int) -> None:
        """Set room aside where that leaves so many bytes free."""
        for service in services:
            kilobytes = (RESERVE + spare) >> 10
            script = _KEEP.format(
                folder=SERVICES[service].database,
                name=RESERVE_NAME,
                needed=kilobytes,
                count=RESERVE >> 20,
            )
            self.run(service, script)


def is_up(info: Any) -> bool:
    """Whether a container, as ``docker inspect`` has it, runs now."""
    return bool(info["State"]["Running"] and not info["State"]["Restarting"])


def databases(compose_file: Path) -> list[str]:
    """The services that have a volume where they may keep a database; none where there was no `up`."""
    if not compose_file.exists():
        return []
    import yaml

    services = yaml.safe_load(compose_file.read_text())["services"]
    return [
        name
        for name, service in services.items()
        if (folder := SERVICES[name].database)
        and any(str(volume).endswith(f":{folder}") for volume in service.get("volumes", ()))
    ]
