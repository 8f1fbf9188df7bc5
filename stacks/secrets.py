"""The secrets of a stack: made at the first `up`, one file each, in a folder that only its owner can enter.

The folder is closed (0700). On the Compose engine the files in it can be read by every uid (0444), because a
container's user, whose uid is not the owner's, reads them through a bind mount; nobody else gets as far as the folder.
"""

from __future__ import annotations

import os
import secrets as random
from typing import TYPE_CHECKING

from console import UserError
from stacks.deployment import make_private_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from stacks.deployment import Deployment

# Made once; what is stored depends on them.
GENERATED: dict[str, Callable[[], str]] = {
    "postgres-password": lambda: random.token_hex(24),
    "database-password": lambda: random.token_hex(24),
    "object-store-root-user": lambda: f"root{random.token_hex(8)}",
    "object-store-root-password": lambda: random.token_hex(24),
    "object-store-key": lambda: f"mlflow{random.token_hex(8)}",
    "object-store-secret": lambda: random.token_hex(24),
    "gateway-passphrase": lambda: random.token_hex(32),
}
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
GATEWAY_KEYS = "gateway-keys"


def _escaped(password: str) -> str:
    return password.replace("\\", "\\\\").replace(":", "\\:")


def _profile(key: str, secret: str) -> str:
    return f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"


def folder(deployment: Deployment) -> Path:
    """Where a deployment's secrets lie."""
    return deployment.state / "secrets"


def ensure(deployment: Deployment, wanted: Iterable[str], *, engine: str) -> set[str]:
    """Make the secrets that a deployment's services name, once, and write what is derived from them.

    Args:
        deployment: whose secrets.
        wanted: names of `GENERATED` and `DERIVED`.
        engine: decides the mode of the files.

    Returns:
        The names of those that are made once.

    Raises:
        UserError: a secret is gone that the stack's data depends on, or a file cannot be written.
    """
    wanted = set(wanted) & (GENERATED.keys() | DERIVED.keys())
    if not wanted:
        return set()
    make_private_dir(folder(deployment))
    given = deployment.given_secrets
    names = {source for name in wanted for source in SOURCES.get(name, (name,))}
    known = {}
    for name in sorted(names):
        path = folder(deployment) / name
        if name in given:
            known[name] = given[name]
        elif path.exists():
            known[name] = path.read_text()
        elif name in deployment.record().get("secrets", []):
            raise UserError(
                f"the secret '{name}' of stack '{deployment.name}' is gone, and its data depends on it",
                f"put the file back: {path}",
                f"or give up the data: invoke down --stack={deployment.name} --volumes",
            )
        else:
            known[name] = GENERATED[name]()
        _write(path, known[name], engine)
    for name in sorted(wanted & DERIVED.keys()):
        _write(folder(deployment) / name, DERIVED[name](known), engine)
    return names


def copy_gateway_keys(deployment: Deployment, source: Path, *, engine: str) -> None:
    """Copy the provider keys beside the other secrets, so that containers and processes read them there.

    Args:
        deployment: whose gateway.
        source: the folder in which the user keeps one file a key; it need not exist.
        engine: decides the mode of the files.
    """
    target = folder(deployment) / GATEWAY_KEYS
    make_private_dir(target)
    if engine == "compose":  # below a closed folder; a container's user enters it through its mount
        target.chmod(0o755)
    keys = {file.name: file for file in source.iterdir() if file.is_file()} if source.is_dir() else {}
    for stale in {file.name for file in target.iterdir()} - keys.keys():
        (target / stale).unlink()
    for name, file in keys.items():
        _write(target / name, file.read_text(), engine)


def _write(path: Path, text: str, engine: str) -> None:
    mode = 0o444 if engine == "compose" else 0o400
    if path.exists() and path.read_text() == text and path.stat().st_mode & 0o777 == mode:
        return
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    fresh.chmod(mode)
    fresh.replace(path)
