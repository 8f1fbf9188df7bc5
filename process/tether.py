"""Tie a process to its parent: when the parent dies, however it dies, the process is told to end.

``python -m process.tether REQUEST COMMAND...`` is for programs that a supervisor starts: they end with it even when it
is killed, and none is left holding a port. The request is JSON: the signal that is sent then (``TERM``), and variables
of the command whose values are in files.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from console import UsageError, UserError, user_errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXAMPLE = '{"signal": "INT", "env": {"NAME": "FILE"}}'
_PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with_parent(parent: int, death: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent dies; without Linux, a thread watches.

    The setting survives ``exec`` (prctl(2), PR_SET_PDEATHSIG); the thread does not.

    Args:
        parent: process id of the parent, as known before it could have died.
        death: the signal to send.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(death), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), death)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), death)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def secrets_from_files(files: Mapping[str, str]) -> dict[str, str]:
    """Read files, without the line end that closes each.

    Args:
        files: path by the name of a variable.

    Returns:
        the environment variables, name to content.

    Raises:
        UserError: a file cannot be read.
    """
    environment = {}
    for name, file in files.items():
        try:
            environment[name] = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise UserError(f"cannot read the file for {name}: {error.strerror}", f"file: {file}") from None
    return environment


def main(words: Sequence[str]) -> None:
    """Become the command, tied to the process that started this one.

    Raises:
        UserError: a secret's file cannot be read, or the command cannot be started.
        UsageError: the first word is no request, or no command follows it.
    """
    parent = os.getppid()
    death, files = _read(words[0] if words else "")
    command = list(words[1:])
    if not command:
        raise UsageError("a tether takes a request in JSON and the words of a command", f"request: {EXAMPLE}")
    os.environ.update(secrets_from_files(files))
    if sys.platform == "linux":
        die_with_parent(parent, death)
    try:
        os.execvp(command[0], command)  # noqa: S606 - becoming the command is the point
    except OSError as error:
        raise UserError(f"cannot start '{command[0]}': {error.strerror}") from None


def _read(text: str) -> tuple[signal.Signals, dict[str, str]]:
    try:
        request = {**json.loads(text)}
        death = signal.Signals[f"SIG{request.pop('signal', 'TERM')}"]
        files = {str(name): str(file) for name, file in request.pop("env", {}).items()}
        if request:
            raise ValueError(f"unknown: {', '.join(request)}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"this is no request: {error}", f"for example: {EXAMPLE}") from None
    return death, files


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
