"""The Docker command line, as the images need it: argv lists, answers as text, failures as `UserError`."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from console import UserError, note

if TYPE_CHECKING:
    from pathlib import Path

TAIL = 25  # lines of a failed command's output that are shown


def require() -> None:
    """Hold that a Docker engine answers.

    Raises:
        UserError: no docker command, or no engine behind it.
    """
    answer = _captured("version", "--format", "{{.Server.Version}}")
    if answer.returncode != 0:
        reason = answer.stderr.strip().splitlines()[-1:]
        raise UserError("no Docker engine answers", *reason, "what is missing: invoke doctor")


def answers() -> bool:
    """Whether a Docker engine answers."""
    return _captured("version").returncode == 0


def _captured(*argv: str) -> subprocess.CompletedProcess[str]:
    command = ["docker", *argv]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", "docker: command not found")


def inspect(reference: str) -> dict[str, Any] | None:
    """What ``docker image inspect`` says of an image on this machine, or None where it is not here."""
    answer = _captured("image", "inspect", reference)
    rows = json.loads(answer.stdout or "[]") if answer.returncode == 0 else []
    return rows[0] if rows else None


def labelled(label: str) -> list[dict[str, Any]]:
    """What ``image inspect`` says of every image, tagged or not, that carries a label."""
    ids = _captured("image", "ls", "--quiet", "--no-trunc", "--filter", f"label={label}").stdout.split()
    if not ids:
        return []
    rows: list[dict[str, Any]] = json.loads(_captured("image", "inspect", *dict.fromkeys(ids)).stdout or "[]")
    return rows


def images_in_use() -> set[str]:
    """The ids of the images that containers on this machine, running or not, were made of."""
    ids = _captured("ps", "--all", "--quiet", "--no-trunc").stdout.split()
    return set(_captured("inspect", "--format", "{{.Image}}", *ids).stdout.split()) if ids else set()


def pull(reference: str) -> str:
    """Fetch an image; an empty text when it is here, else the engine's last line on why not."""
    note(f"fetching {reference}")
    answer = _captured("pull", "--quiet", reference)
    lines = answer.stderr.strip().splitlines() or ["no reason given"]
    return "" if answer.returncode == 0 else lines[-1]


def run(argv: list[str], *, doing: str, steps: bool = False, stdin: Path | None = None) -> None:
    """Run a long command; its output is shown only when it fails.

    Args:
        argv: the whole command.
        doing: what it does, for the error's first line.
        steps: print the builder's own step lines as they come.
        stdin: a file to feed it.

    Raises:
        UserError: it ended with another exit code than 0; with the last lines it printed.
    """
    tail: list[str] = []
    with (
        subprocess.Popen(
            argv,
            stdin=stdin.open("rb") if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101  (PIPE above)
        for line in process.stdout:
            tail = [*tail[-TAIL:], line.rstrip()]
            if steps and line.startswith("Step "):
                note("  " + line.rstrip()[:100])
    if process.returncode != 0:
        raise UserError(f"{doing} failed (exit code {process.returncode})", *tail)
