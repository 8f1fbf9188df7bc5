"""Maintenance of a stack's data: commands that run where they reach the stores, or here for any other MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from console import UserError, note
from stacks import engines
from stacks.deployment import open_deployment
from stacks.render import Stores
from stacks.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stacks.engines import Engine

PASSPHRASE = "gateway-passphrase"  # noqa: S105 (the secret's name)


def run(module: str, flags: dict[str, object], *, stack: str, backend_store_uri: str = "") -> None:
    """Run one of our modules for a stack, or, with a database of its own, for any MLflow.

    Args:
        module: the module, and its verb if it has one, such as ``cleanup`` or ``database migrate``.
        flags: its flags; an empty value leaves one out, True gives it without a value.
        stack: name of the stack.
        backend_store_uri: a database that belongs to no stack; the module then runs in this environment.

    Raises:
        UserError: the stack was never up.
        SystemExit: with the module's exit code, unless that is 0.
    """
    argv = ["-m", *module.split(), *_words(flags)]
    if backend_store_uri:
        here([*argv, "--backend-store-uri", backend_store_uri])
    else:
        _finish(engines.running(open_deployment(stack, recorded=True)).run(argv, {}))


def migrate(flags: dict[str, object], *, stack: str, backend_store_uri: str) -> None:
    """Migrate the schema, with a backup in the folder that the flag ``to`` names; see `run`.

    Raises:
        UserError: as in `run`; also, that folder cannot be written, or the stack does not come up again.
        SystemExit: as in `run`.
    """
    if backend_store_uri:
        run("database migrate", flags, stack=stack, backend_store_uri=backend_store_uri)
        return
    deployment = open_deployment(stack, recorded=True)
    engine = engines.running(deployment)
    if flags["check"]:
        _finish(engine.run(["-m", "database", "migrate", *_words({**flags, "to": ""})], {}))
        return
    to = folder_of_sets(str(flags["to"]))
    with deployment.locked("migrate"), engine.without_server():
        code = engine.run(["-m", "database", "migrate", *_words({**flags, "to": to})], {}, folders=[to])
    _finish(code)


def backup(flags: dict[str, object], *, stack: str, backend_store_uri: str) -> None:
    """Back up to the folder that the flag ``to`` names, the key that a stack's data depends on included; see `run`.

    Raises:
        UserError: as in `run`; also, that folder cannot be written.
        SystemExit: as in `run`.
    """
    if backend_store_uri:
        run("database backup", flags, stack=stack, backend_store_uri=backend_store_uri)
        return
    deployment = open_deployment(stack, recorded=True)
    _finish(back_up(engines.running(deployment), flags))


def back_up(engine: Engine, flags: dict[str, object]) -> int:
    """`backup` of the stack of an engine; returns the verb's exit code."""
    to = folder_of_sets(str(flags["to"]))
    key = engine.secret(PASSPHRASE) if "gateway-sync" in engine.deployment.services else ""
    words = _words({**flags, "to": to, "include": key})
    return engine.run(["-m", "database", "backup", *words], {}, folders=[to])


def restore(flags: dict[str, object], *, stack: str, backend_store_uri: str) -> None:
    """Put the set that the flag ``backup`` names back; see `run`.

    The set's provider keys were stored with the passphrase of its day: they are opened to the stack's own, which may
    be a newer one, or another stack's.

    Raises:
        UserError: as in `run`; also, the stack does not come up again.
        SystemExit: as in `run`.
    """
    if backend_store_uri:
        run("database restore", flags, stack=stack, backend_store_uri=backend_store_uri)
        return
    deployment = open_deployment(stack, recorded=True)
    engine = engines.running(deployment)
    one = Path(str(flags["backup"])).expanduser().absolute()
    if not one.is_dir():
        raise UserError(f"no backup at {one}", "to see the sets there are: invoke backups")
    with deployment.locked("restore"), engine.without_server():
        code = put_back(engine, one, flags)
    _finish(code)


def put_back(engine: Engine, one: Path, flags: dict[str, object]) -> int:
    """`restore` of a set to the stack of an engine, whose server does not run; returns the verb's exit code."""
    words = _words({**flags, "backup": one})
    code = engine.run(["-m", "database", "restore", *words], {}, folders=[one])
    previous = one / "keys" / PASSPHRASE
    if code == 0 and "gateway-sync" in engine.deployment.services and previous.exists():
        uri = Stores.of(engine.deployment, engine.name).backend_store_uri
        words = [uri, str(previous), str(engine.secret(PASSPHRASE))]
        code = engine.run(["-m", "server.rekey", *words], {}, folders=[one])
    return code


def folder_of_sets(given: str) -> Path:
    """The absolute path of an existing folder."""
    folder = Path(given).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder}: {error.strerror}", "give another: --to=FOLDER"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder} is not writable for this user", f"see: ls -ld {folder}")
    return folder


def _finish(code: int) -> None:
    if code:
        raise SystemExit(code)


def usage(flags: dict[str, object], *, html: str, stack: str, backend_store_uri: str) -> None:
    """Show who uses the space; with `html`, as a page in a file of this machine.

    Raises:
        UserError: as in `run`, or the file cannot be written.
        SystemExit: as in `run`.
    """
    if not html or backend_store_uri:
        run("cleanup.usage", {**flags, "html": html}, stack=stack, backend_store_uri=backend_store_uri)
        return
    engine = engines.running(open_deployment(stack, recorded=True))
    page = engine.capture(["-m", "cleanup.usage", "--html=-", *_words(flags)])
    try:
        Path(html).write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {html}: {error.strerror}") from None
    note(f"wrote {html}")


def here(argv: Sequence[str]) -> None:
    """Run a module in this environment.

    Raises:
        SystemExit: with its exit code, unless that is 0.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    _finish(subprocess.run([sys.executable, *argv], env=environment, check=False).returncode)


def _words(flags: dict[str, object]) -> Sequence[str]:
    given = {
        f"--{name.replace('_', '-')}": value
        for name, value in flags.items()
        if value not in {"", False, None}
    }
    return [name if value is True else f"{name}={value}" for name, value in given.items()]
