"""The folders of this machine that a container of the MLflow image is given, under the same path, and as whom."""

from __future__ import annotations

import os
from pathlib import Path

from console import UserError
from stacks.engines.programs import printed

# What a container of the MLflow image needs for itself.
IMAGE_FOLDERS = (
    *("/bin", "/etc", "/lib", "/opt/mlflow/bin", "/opt/mlflow-stacks/server", "/run/secrets", "/usr/lib"),
    *("/tmp", "/var/lib/mlflow", "/var/tmp"),  # noqa: S108 (mounts of its own)
)


def this_user() -> str:
    """The uid and gid in a container that are this user's outside."""
    options = printed(["docker", "info", "--format", "{{json .SecurityOptions}}"]) or ""
    return "0:0" if "name=rootless" in options else f"{os.getuid()}:{os.getgid()}"


def mount(folder: Path) -> str:
    """A folder of this machine, under the same path in a container of the MLflow image.

    Raises:
        UserError: it would hide something of the image, or Compose cannot read its name.
    """
    if ":" in str(folder):
        raise UserError(f"a container cannot be given {folder}: there is a colon in its name", "take another")
    if any(Path(place).is_relative_to(folder) for place in IMAGE_FOLDERS):
        raise UserError(
            f"a container cannot be given {folder}: it has a folder of that name itself",
            f"take one below it: {folder / 'backups'}",
        )
    return f"{folder}:{folder}"
