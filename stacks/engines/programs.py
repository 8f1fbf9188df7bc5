"""The programs `docker` and `docker compose`: which there are, and what they print."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Sequence


@functools.cache
def compose_command() -> tuple[str, ...]:
    """The argv prefix of Docker Compose: docker's plugin, else the program of the PyPI wheel."""
    if printed(["docker", "compose", "version"]) is not None:
        return ("docker", "compose")
    beside = Path(sys.executable).with_name("docker-compose")
    return (str(beside) if beside.exists() else "docker-compose",)


def engine_version() -> str | None:
    """Of the Docker engine that answers, if one does."""
    return printed(["docker", "version", "--format", "{{.Server.Version}}"])


def compose_version() -> str | None:
    """Of Docker Compose, if there is one."""
    return printed([*compose_command(), "version", "--short"])


def printed(command: Sequence[str]) -> str | None:
    """What a command prints; None when it fails or is not there."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def release(text: str) -> Version:
    """The release of a program as it says it itself: ``v2.40.3-desktop.1`` is 2.40.3."""
    return Version(match[1] if (match := re.match(r"v?(\d+(?:\.\d+)*)", text)) else "0")


def bytes_of(text: str) -> int:
    """A size as ``docker stats`` writes it, such as ``351.7MiB``."""
    number = text.strip().rstrip("BKMGTi")
    unit = text.strip().removeprefix(number)
    return int(float(number) * 1024 ** ("B", "KiB", "MiB", "GiB", "TiB").index(unit))


def since(moment: str) -> float:
    """Seconds since a time as the engine writes it, with nine digits of a second."""
    return round(time.time() - datetime.fromisoformat(f"{moment[:19]}+00:00").timestamp(), 1)
