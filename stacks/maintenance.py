"""Maintenance of a stack's data: commands that run where they reach the stores, or here for any other MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from console import UserError, note
from stacks import engines, secrets
from stacks.deployment import open_deployment
from stacks.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(
    module: str, flags: dict[str, object], *, stack: str, backend_store_uri: str = "", offline: bool = False
) -> None:
    """Run one of our modules for a stack, or, with a database of its own, for any MLflow.

    Args:
        module: the module, and its verb if it has one, such as ``cleanup`` or ``database migrate``.
        flags: its flags; an empty value leaves one out, True gives it without a value.
        stack: name of the stack.
        backend_store_uri: a database that belongs to no stack; the module then runs in this environment.
        offline: stop the stack's tracking server first, and bring the stack up again afterwards.

    Raises:
        UserError: the stack was never up, or its engine cannot do this.
        SystemExit: with the module's exit code, unless that is 0.
    """
    argv = ["-m", *module.split(), *_words(flags)]
    if backend_store_uri:
        here([*argv, "--backend-store-uri", backend_store_uri])
        return
    deployment = open_deployment(stack, recorded=True)
    engine = engines.running(deployment)
    if offline:
        with deployment.locked(module.rpartition(" ")[2]), engine.without_server():
            code = engine.run(argv, {})
    else:
        code = engine.run(argv, {})
    if code:
        raise SystemExit(code)


def database(
    verb: str, flags: dict[str, object], *, stack: str, backend_store_uri: str, offline: bool = False
) -> None:
    """Run a verb of ``python -m database``, with the keys that a stack's data depends on.

    Args:
        verb: ``migrate``, ``backup`` or ``restore``.
        flags: its flags.
        stack: name of the stack.
        backend_store_uri: a database that belongs to no stack.
        offline: as in `run`.

    Raises:
        UserError: as in `run`; also on the Compose engine, where the programs of PostgreSQL and the folder of the
            backups are on two sides of the container's wall.
        SystemExit: with the verb's exit code, unless that is 0.
    """
    if not backend_store_uri:
        deployment = open_deployment(stack, recorded=True)
        if engines.running(deployment).name == "compose":
            raise UserError(
                f"{verb} does not reach the data of a stack on the compose engine yet",
                "it works on stacks of the host engine, and on any MLflow that is reached from here:",
                f"invoke {verb} --backend-store-uri=URI",
            )
        passphrase = secrets.folder(deployment) / "gateway-passphrase"
        if passphrase.exists() and verb == "backup":
            flags = {**flags, "include": passphrase}
        if verb == "restore":
            flags = {**flags, "keys_to": secrets.folder(deployment)}
    run(f"database {verb}", flags, stack=stack, backend_store_uri=backend_store_uri, offline=offline)


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
    code = subprocess.run([sys.executable, *argv], env=environment, check=False).returncode
    if code:
        raise SystemExit(code)


def _words(flags: dict[str, object]) -> Sequence[str]:
    given = {
        f"--{name.replace('_', '-')}": value
        for name, value in flags.items()
        if value not in {"", False, None}
    }
    return [name if value is True else f"{name}={value}" for name, value in given.items()]
