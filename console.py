"""What every part of mlflow-stacks says to its user: errors, notes, questions, JSON.

Results go to standard output. Everything else (notes, progress, errors) goes to standard error, so that
``--json`` leaves exactly one JSON object on standard output.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class UserError(Exception):
    """Something the user can mend: what is wrong, where, and the next command to type.

    Args:
        message: one line, lower case, no full stop: what is wrong.
        hints: further lines, each printed indented: where it is wrong and what to type next.
    """

    def __init__(self, message: str, *hints: str) -> None:
        super().__init__(message)
        self.message = message
        self.hints = hints

    def __str__(self) -> str:
        return "\n  ".join((self.message, *self.hints))


@contextmanager
def user_errors(*, debug: bool = False) -> Iterator[None]:
    """Print a `UserError` raised inside the block and exit with code 1; Ctrl-C exits with 130.

    Args:
        debug: let the exception through, with its traceback.

    Raises:
        SystemExit: 1 after a `UserError`, 130 after a `KeyboardInterrupt`.
    """
    try:
        yield
    except UserError as error:
        if debug:
            raise
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        if debug:
            raise
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None


def note(text: str) -> None:
    """Print one line of progress or advice on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def result_width() -> int | None:
    """Columns for a table on standard output: the terminal's own (None), or 140 in a file or a pipe."""
    return None if sys.stdout.isatty() else 140


def emit_json(value: Any) -> None:
    """Print `value` as the one JSON object of a ``--json`` answer on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
    sys.stdout.flush()


def interactive() -> bool:
    """Whether somebody is there to answer a question (both ends are terminals, and this is no CI)."""
    return sys.stdin.isatty() and sys.stderr.isatty() and not os.environ.get("CI")


def confirm(question: str, *, yes: bool) -> bool:
    """Ask before something destructive happens.

    Args:
        question: what is about to happen, as a question without its ``[y/N]``.
        yes: the caller's ``--yes``: no question, go ahead.

    Returns:
        True to go ahead. Without a terminal and without ``--yes``, False, after a line that says so.
    """
    if yes:
        return True
    if not interactive():
        note("nothing was changed: there is no terminal to ask on; add --yes to go ahead")
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in {"y", "yes"}:
        return True
    note("nothing was changed")
    return False
