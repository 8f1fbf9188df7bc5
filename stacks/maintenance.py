"""Maintenance of a stack's data: commands that run where they reach the stores, or here for any other MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from stacks import engines
from stacks.deployment import open_deployment
from stacks.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence


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
        command = [sys.executable, *argv, "--backend-store-uri", backend_store_uri]
        code = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode
    else:
        code = engines.running(open_deployment(stack, recorded=True)).run(argv, {})
    if code:
        raise SystemExit(code)


def _words(flags: dict[str, object]) -> Sequence[str]:
    given = {
        f"--{name.replace('_', '-')}": value
        for name, value in flags.items()
        if value not in {"", False, None}
    }
    return [name if value is True else f"{name}={value}" for name, value in given.items()]
