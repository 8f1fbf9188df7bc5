"""`invoke doctor`: what this machine has and lacks for each engine."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass

from stacks.definition.settings import ROOT


@dataclass(frozen=True)
class Finding:
    """One row.

    Attributes:
        what: the thing looked for.
        needed_for: the engine or task that needs it.
        ok: whether it is there.
        found: what was found.
        mend: the command that mends it, where it is missing.
    """

    what: str
    needed_for: str
    ok: bool
    found: str
    mend: str | None = None


_WINDOWS = Finding(
    "Linux or macOS",
    "every verb",
    ok=False,
    found="Windows",
    mend="wsl --install, and clone this repository in there (Docker Desktop lends WSL its engine)",
)


def examine() -> list[Finding]:
    """Look at everything once; changes nothing."""
    if sys.platform == "win32":
        return [_WINDOWS]
    return [*_engines(), _packages_builder(), _room(), _writable()]


def _engines() -> list[Finding]:
    from stacks.engines.choice import ENGINES  # which do not import on Windows

    rows = []
    for name, engine in ENGINES.items():
        problem = engine.why_not()
        state = problem[0] if problem else "ready"
        rows.append(
            Finding(f"{name} engine", f"up --engine={name}", problem is None, state, problem and problem[1])
        )
    return rows


def _packages_builder() -> Finding:
    tool = shutil.which("mmdebstrap")
    return Finding(
        "mmdebstrap",
        "build --from-packages",
        tool is not None,
        tool or "missing",
        None if tool else "sudo apt-get install mmdebstrap",
    )


def _room() -> Finding:
    free = shutil.disk_usage(ROOT).free
    enough = free > 5 * 10**9
    return Finding(
        "disk space",
        "images and data",
        enough,
        f"{free / 1e9:.0f} GB free",
        None if enough else f"make room on {ROOT.anchor}",
    )


def _writable() -> Finding:
    ok = os.access(ROOT, os.W_OK)
    return Finding(
        "checkout", "state in .stacks", ok, str(ROOT), None if ok else f"sudo chown -R {os.getuid()} {ROOT}"
    )
