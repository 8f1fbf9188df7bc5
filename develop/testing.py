"""What ``invoke test``, ``test-unit`` and ``test-integration`` run, and what they say about what they cannot."""

from __future__ import annotations

import shutil
import subprocess
import sys

from console import UserError, note
from stacks.definition.settings import ROOT
from stacks.engines.compose import ComposeEngine


def unit() -> None:
    """Run the pure tests.

    Raises:
        SystemExit: pytest's exit code.
    """
    _pytest("tests/unit")


def integration(*, require_docker: bool) -> None:
    """Run the tests against real servers, on every engine this machine has.

    Args:
        require_docker: a missing engine is a failure, not a line.

    Raises:
        UserError: there is no engine, and one is required.
        SystemExit: pytest's exit code.
    """
    _pytest("tests/host", *_groups(require_docker=require_docker))


def everything(*, require_docker: bool) -> None:
    """Run all of it in one pytest run.

    Raises:
        UserError: there is no engine, and one is required.
        SystemExit: pytest's exit code.
    """
    _pytest("tests/unit", "tests/host", *_groups(require_docker=require_docker))


def _groups(*, require_docker: bool) -> list[str]:
    words = []
    problem = ComposeEngine.why_not()
    if problem is None:
        words.append("tests/docker")
    elif require_docker:
        raise UserError(f"the Docker tests cannot run here: {problem[0]}", problem[1])
    else:
        note(f"left out: tests/docker ({problem[0]}; {problem[1]})")
    if not shutil.which("chromium"):
        if require_docker:
            raise UserError("the browser tests cannot run here: no Chromium", "sudo apt-get install chromium")
        note("left out: the browser tests (no Chromium; sudo apt-get install chromium)")
        words += ["-m", "not browser"]
    return words


def _pytest(*words: str) -> None:
    raise SystemExit(
        subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT, check=False).returncode
    )
