"""The secrets of a stack: made at the first `up`, one file each, in a folder that only its owner can enter.

The folder is closed (0700). On the Compose engine the files in it can be read by every uid (0444), because a
container's user, whose uid is not the owner's, reads them through a bind mount; nobody else gets as far as the folder.
"""

from __future__ import annotations

import secrets as random
from typing import TYPE_CHECKING

from console import UserError
from files import write_if_changed
from stacks.definition.services import SERVICES
from stacks.state.record import ROTATION, make_private_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from stacks.definition.deployment import Deployment

FOLDER = "secrets"  # in a stack's state directory
# Made once; what is stored depends on them.
GENERATED = {secret.name: secret for service in SERVICES.values() for secret in service.secrets}
# While a rotation is under way, the value before it, by which the stores are brought to the new one; else empty.
PREVIOUS = {f"{name}-previous": name for name, secret in GENERATED.items() if secret.keeps_previous}
# Written anew from those at each `up`, in the form that a program reads.
DERIVED: dict[str, Callable[[dict[str, str]], str]] = {
    # PostgreSQL manual, 32.16 The Password File
    "pgpass": lambda known: f"*:*:*:*:{_escaped(known['database-password'])}\n",
    "object-store-credentials": lambda known: _profile(
        known["object-store-key"], known["object-store-secret"]
    ),
    "object-store-owner": lambda known: _profile(
        known["object-store-root-user"], known["object-store-root-password"]
    ),
}
SOURCES = {
    "pgpass": ("database-password",),
    "object-store-credentials": ("object-store-key", "object-store-secret"),
    "object-store-owner": ("object-store-root-user", "object-store-root-password"),
}


def _escaped(password: str) -> str:
    return password.replace("\\", "\\\\").replace(":", "\\:")


def _profile(key: str, secret: str) -> str:
    return f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"


def fresh(name: str) -> str:
    """A new value of one of `GENERATED`."""
    return GENERATED[name].prefix + random.token_hex(GENERATED[name].size)


def folder(deployment: Deployment) -> Path:
    """Where a deployment's secrets lie."""
    return deployment.state / FOLDER


def ensure(deployment: Deployment, wanted: Iterable[str], *, engine: str) -> set[str]:
    """Make the secrets that a deployment's services name, once, and write what is derived from them.

    Where a rotation is under way, the new values take the place of those before.

    Args:
        deployment: whose secrets.
        wanted: names of `GENERATED`, `PREVIOUS` and `DERIVED`.
        engine: decides the mode of the files.

    Returns:
        The names of those that are made once.

    Raises:
        UserError: a secret is gone that the stack's data depends on, or a file cannot be written.
    """
    wanted = set(wanted) & (GENERATED.keys() | PREVIOUS.keys() | DERIVED.keys())
    if not wanted:
        return set()
    make_private_dir(folder(deployment))
    given, rotated = deployment.given_secrets, rotation(deployment)
    names = {source for name in wanted for source in SOURCES.get(name, (name,))} - PREVIOUS.keys()
    for name in sorted(wanted & PREVIOUS.keys()):
        _keep_previous(folder(deployment) / name, rotated.get(PREVIOUS[name], ""), engine)
    known = {}
    for name in sorted(names):
        path = folder(deployment) / name
        if name in given:
            known[name] = given[name]
        elif path.exists():
            known[name] = rotated.get(name) or path.read_text()
        elif name in deployment.recorded.secrets:
            raise UserError(
                f"the secret '{name}' of stack '{deployment.name}' is gone, and its data depends on it",
                f"put the file back: {path}",
                f"or give up the data: invoke down --stack={deployment.name} --volumes",
            )
        else:
            known[name] = fresh(name)
        write(path, known[name], engine)
    for name in sorted(wanted & DERIVED.keys()):
        write(folder(deployment) / name, DERIVED[name](known), engine)
    return names


def rotation(deployment: Deployment) -> dict[str, str]:
    """The new values of a rotation that was begun and has not ended, by the secret's name; else empty."""
    begun = deployment.state / ROTATION
    if not begun.is_dir():
        return {}
    return {file.name: file.read_text() for file in begun.iterdir() if file.name in GENERATED}


def _keep_previous(path: Path, new: str, engine: str) -> None:
    """Before a secret is replaced, write its value beside it; without a rotation, nothing."""
    current = path.with_name(PREVIOUS[path.name])
    if not new:
        write(path, "", engine)
    elif current.exists() and (before := current.read_text()) != new:
        write(path, before, engine)


def write(path: Path, text: str, engine: str) -> None:
    """Replace a secret's file in one step; on Compose a container's user may read it (see above)."""
    mode = 0o444 if engine == "compose" else 0o400
    write_if_changed(path, text.encode(), mode)
