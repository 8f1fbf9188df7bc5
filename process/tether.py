"""Tie a process to its parent: when the parent dies, however it dies, the process is told to end.

``python -m process.tether [--signal NAME] [--env NAME=FILE]... -- COMMAND...`` is for programs that a
supervisor starts: they end with it even when it is killed, and none is left holding a port.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

from console import UserError, user_errors

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


def secrets_from_files(assignments: list[str]) -> dict[str, str]:
    """Read the files of ``NAME=FILE`` assignments, without the line end that closes each.

    Returns:
        the environment variables, name to content.

    Raises:
        UserError: an assignment is not ``NAME=FILE``, or its file cannot be read.
    """
    environment = {}
    for assignment in assignments:
        name, separator, file = assignment.partition("=")
        if not (name and separator and file):
            raise UserError(f"--env takes NAME=FILE, not '{assignment}'")
        try:
            environment[name] = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise UserError(f"cannot read the file for {name}: {error.strerror}", f"file: {file}") from None
    return environment


def main(argv: list[str] | None = None) -> None:
    """Become the command, tied to the process that started this one.

    Raises:
        UserError: a secret's file cannot be read, or the command cannot be started.
        SystemExit: 2, wrong usage.
    """
    parent = os.getppid()
    parser = argparse.ArgumentParser(prog="python -m process.tether", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--signal", default="TERM", metavar="NAME", help="signal sent when the parent dies")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=FILE", help="variable set to what the file holds"
    )
    parser.add_argument("command", nargs="+", help="the command, after --")
    arguments = parser.parse_args(argv)
    death = getattr(signal, f"SIG{arguments.signal.upper().removeprefix('SIG')}", None)
    if not isinstance(death, signal.Signals):
        parser.error(f"unknown signal '{arguments.signal}'")
    os.environ.update(secrets_from_files(arguments.env))
    if sys.platform == "linux":
        die_with_parent(parent, death)
    try:
        os.execvp(arguments.command[0], arguments.command)  # noqa: S606 - becoming the command is the point
    except OSError as error:
        raise UserError(f"cannot start '{arguments.command[0]}': {error.strerror}") from None


if __name__ == "__main__":
    with user_errors():
        main()
