"""What every part of mlflow-stacks says to its user: errors, notes, questions, JSON.

Results go to standard output. Everything else (notes, progress, errors) goes to standard error, so that
``--json`` leaves exactly one JSON object on standard output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY = 5.0  # seconds between two lines of progress where there is no terminal
EVERY_ON_TERMINAL = 0.1  # seconds
_BAR = 24  # columns


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


def size(number: float) -> str:
    """Return a number of bytes as a person reads it: ``1.5 GB``."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"


class Progress:
    """What is done of a step, in units (bytes, revisions, objects), out of a total or 0."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def add(self, number: int, detail: str = "") -> None:
        """Count `number` more as done."""
        self.at(self.done + number, detail)

    def at(self, done: int, detail: str = "") -> None:
        """Set what is done, and show it when it is time to."""
        self.done = done
        if self.due():
            self._shown = time.monotonic()
            self.show(detail)

    def due(self) -> bool:
        """Whether it is time to show something again."""
        return time.monotonic() - self._shown >= (EVERY_ON_TERMINAL if self._terminal else EVERY)

    def show(self, detail: str = "") -> None:
        """Show the present state now."""
        unit = "" if self.unit == "bytes" else f" {self.unit}"
        amount = f"{self._number(self.done)}{unit}"
        if self.total:
            share = min(1.0, self.done / self.total)
            amount = f"{self._number(self.done)}/{self._number(self.total)}{unit} ({100 * share:.0f} %)"
        if not self._terminal:
            note(f"{self.what}: {amount} {detail}".rstrip())
            return
        bar = f" [{'#' * round(_BAR * share):<{_BAR}}]" if self.total else ""
        line = f"{self.what}{bar} {amount} {detail}".rstrip()
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        sys.stderr.write(f"\r\x1b[K{line[: columns - 1]}")  # one that wraps could not be taken back
        sys.stderr.flush()

    def clear(self) -> None:
        """Leave the terminal's line empty for what comes next."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _number(self, value: int) -> str:
        return size(value) if self.unit == "bytes" else str(value)


@contextmanager
def progress(what: str, total: int = 0, unit: str = "bytes") -> Iterator[Progress]:
    """Show the progress of the block."""
    step = Progress(what, total, unit)
    try:
        yield step
    finally:
        step.clear()
