"""Opening a deployment: everything that it depends on is read here, once, and checked.

Two ways: as the settings want it now (`up`, `render`), and as the last `up` left it (every verb on what is there).
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from console import UserError
from services.postgres import cluster
from stacks import catalogue
from stacks.definition import settings
from stacks.definition.deployment import Deployment, services_of
from stacks.definition.settings import ROOT, Settings
from stacks.state import environments, inputs, record
from stacks.state.record import ROTATION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stacks.catalogue import Stack
    from stacks.definition.deployment import GatewayInputs, Record

SOCKET = "supervisord.sock"
SOCKET_BYTES = 100  # of a socket's path (unix(7): 108, on macOS 104)
SOCKETS = Path("/tmp") / f"mlflow-stacks-{os.getuid()}"  # noqa: S108 (a closed folder of this user's)


def open_deployment(
    stack_name: str, overrides: list[str] | None = None, *, reset: bool = False
) -> Deployment:
    """Open a stack as its settings want it now.

    Args:
        stack_name: what ``--stack`` says.
        overrides: ``KEY=VALUE`` words of ``--set``.
        reset: forget what it was last brought up with.

    Raises:
        UserError: an unknown stack, a wrong setting, a record that cannot be read, or a mistake in gateway.yaml.
    """
    stack, merged, given = _merged(stack_name, overrides)
    state = _state(stack, merged)
    known = record.read(state)
    if known.engine and not reset:
        stack, merged, given = _merged(stack_name, overrides, known.settings)
    return _opened(stack, merged, given, known, inputs.wanted(stack, merged, state, known.exported))


def open_recorded(stack_name: str) -> Deployment:
    """Open a stack as its last `up` left it, whatever ``--set`` that had, so that a verb speaks of what runs.

    Raises:
        UserError: see `open_deployment`.
    """
    stack, merged, given = _merged(stack_name, None)
    known = record.read(_state(stack, merged))
    if not known.engine:
        return _opened(stack, merged, given, known, None)
    last = settings.load(stack.settings, recorded=known.settings, surroundings=False)
    state = _state(stack, merged)
    last = last.model_copy(update={"state_dir": merged.state_dir})
    return _opened(stack, last, given, known, inputs.written(state, services_of(stack, last), known.exported))


def last_settings(deployment: Deployment) -> Settings:
    """The settings that a stack was last brought up with."""
    recorded = deployment.recorded.settings
    return settings.load(deployment.stack.settings, recorded=recorded, surroundings=False)


def reopened(deployment: Deployment) -> Deployment:
    """The same deployment after something has changed the record or begun a rotation; its settings stay."""
    known = record.read(deployment.state)
    given, inputs_ = deployment.given_secrets, deployment.gateway
    return _opened(deployment.stack, deployment.settings, given, known, inputs_)


def with_version(deployment: Deployment, version: str) -> Deployment:
    """The same deployment with another version of MLflow."""
    python = environments.interpreter(deployment.state, version)
    return replace(deployment, mlflow_version=version, mlflow_python=python)


def _merged(
    stack_name: str, overrides: list[str] | None, recorded: Mapping[str, Any] | None = None
) -> tuple[Stack, Settings, dict[str, str]]:
    stack = catalogue.load(stack_name)
    kept = {name: value for name, value in (recorded or {}).items() if name != "state_dir"}
    return stack, *_without_secrets(settings.load(stack.settings, overrides, recorded=kept))


def _state(stack: Stack, merged: Settings) -> Path:
    return (ROOT / merged.state_dir.expanduser() / stack.name).absolute()


def _opened(
    stack: Stack,
    merged: Settings,
    given_secrets: Mapping[str, str],
    known: Record,
    gateway: GatewayInputs | None,
) -> Deployment:
    state = _state(stack, merged)
    _refuse_copy(state, known)
    project = known.project or _project(stack.name, state.parent)
    version = known.mlflow_version or ("" if known.engine else merged.mlflow_version) or environments.pinned()
    return Deployment(
        stack=stack,
        settings=merged,
        state=state,
        project=project,
        root=ROOT,
        python=sys.executable,
        mlflow_python=environments.interpreter(state, version),
        mlflow_version=version,
        workers=merged.workers or min(4, os.cpu_count() or 1),
        socket=_socket(state, project),
        postgres_data=cluster(state, project),
        images=known.images,
        given_secrets=given_secrets,
        generation=_generation(state, known),
        gateway=gateway,
        recorded=known,
    )


def _socket(state: Path, project: str) -> Path:
    """In the state directory; elsewhere where that one's path is too long for a socket, whatever TMPDIR says."""
    path = state / SOCKET
    return path if len(bytes(path)) < SOCKET_BYTES else SOCKETS / f"{project}.sock"


def _refuse_copy(state: Path, known: Record) -> None:
    """Two stacks of one identity would take each other's data and containers."""
    before = Path(known.place)
    if known.place in {"", str(state)} or not (before / record.RECORD).exists() or before.samefile(state):
        return
    if record.read(before).project == known.project:
        raise UserError(
            f"{state} is a copy of {before}, which is still there: they would share one identity",
            "to go on here: move that one away",
            f"to have two: invoke backup there, then here: rm -r {state}, invoke up and invoke restore",
        )


def _generation(state: Path, known: Record) -> int:
    begun = state / ROTATION / "generation"
    if not begun.exists():
        return known.generation
    try:
        return int(begun.read_text())
    except (ValueError, OSError) as error:
        raise UserError(
            f"a rotation of secrets was cut off, and its number cannot be read: {error}",
            f"it is {begun}",
            f"write it anew: echo {known.generation + 1} > {begun}",
        ) from None


def _without_secrets(merged: Settings) -> tuple[Settings, dict[str, str]]:
    """Take the secrets out of the settings, so that nothing rendered or recorded can hold one."""
    given = {
        "object-store-key": merged.s3_access_key.get_secret_value(),
        "object-store-secret": merged.s3_secret_key.get_secret_value(),
    }
    blank: dict[str, object] = {"s3_access_key": SecretStr(""), "s3_secret_key": SecretStr("")}
    if merged.database:
        from database.address import normalize
        from database.dialect import kind_of

        uri = normalize(merged.database)
        if kind_of(uri).file(uri) is not None:
            raise UserError(
                "the setting 'database' takes a PostgreSQL URI",
                "for example: postgresql+psycopg2://USER:PASSWORD@HOST:5432/DATABASE",
            )
        given["database-password"] = uri.password or ""
        blank["database"] = str(uri._replace(password=None))  # URL.set takes None for "as it was"
    return merged.model_copy(update=blank), {name: value for name, value in given.items() if value}


def _project(stack_name: str, state_dir: Path) -> str:
    """A second checkout, or a second state directory, is a second project."""
    return f"{stack_name}-{hashlib.sha256(str(state_dir).encode()).hexdigest()[:6]}"
