"""``invoke lint``: style, types, Dockerfiles, and that every stack renders and Compose accepts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from console import UserError, note
from stacks.definition.settings import ROOT


def run() -> None:
    """Run every check, and name those that failed.

    Raises:
        UserError: one or more failed; their output stands above.
    """
    beside = Path(sys.executable).parent
    dockerfiles = [str(path) for path in sorted(ROOT.glob("images/*/Dockerfile"))]
    checks = {
        "ruff check": [sys.executable, "-m", "ruff", "check", "."],
        "ruff format": [sys.executable, "-m", "ruff", "format", "--check", "."],
        "types": [sys.executable, "-m", "mypy", "."],
        "Dockerfiles": [str(beside / "hadolint"), *dockerfiles],
        "templates": [sys.executable, "-m", "pytest", "-q", "tests/unit/test_render.py"],
    }
    failed = []
    for name, command in checks.items():
        note(f"== {name}")
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            failed.append(name)
    if failed:
        raise UserError(
            f"failed: {', '.join(failed)}", f"style mends itself: {sys.executable} -m ruff check --fix ."
        )
