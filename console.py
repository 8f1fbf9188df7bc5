"""What every part of mlflow-stacks says to its user: errors, notes, questions, sizes, progress, JSON.

Results go to standard output. Everything else (notes, progress, errors) goes to standard error, so that
``--json`` leaves exactly one JSON object on standard output. Nothing that a user, a database or a store named
reaches a terminal raw: `plain` and `cell` take out what would move its cursor, colour it or be read as markup.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import select
import sys
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, ClassVar

from disks import explain, is_full

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID
    from rich.text import Text

EVERY = 5.0  # seconds between two lines of progress where there is no terminal
EVERY_ON_TERMINAL = 0.1  # seconds
NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP)  # whoever gave the name can give another
BROKEN_PIPE = 141  # the exit code of a program that SIGPIPE ended, as a shell says it
# All that is no text: control characters but for tab and newline, marks that turn the direction of writing, and
# halves of characters, which is how Python keeps a file's name that is not UTF-8.
_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(Exception):
    """Something the user can mend: what is wrong, where, and the next command to type.

    Args:
        message: one line, lower case, no full stop: what is wrong.
        hints: further lines, each printed indented: where it is wrong and what to type next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *hints: str) -> None:
        super().__init__(message)
        self.message = message
        self.hints = hints

    def __str__(self) -> str:
        return "\n  ".join((self.message, *self.hints))


class UsageError(UserError):
    """A command line that means nothing; it is found before anything happens."""

    exit_code = 2


@contextmanager
def user_errors(*, debug: bool = False) -> Iterator[None]:
    """Print a `UserError` raised inside the block and exit with its code; Ctrl-C exits with 130.

    A full disk is a `UserError` too, wherever it was met (see `full_disk`). When nobody reads standard output
    any more (``invoke status | head``), the block ends without a word.

    Args:
        debug: let the exception through, with its traceback.

    Raises:
        SystemExit: 1 after a `UserError`, 2 after wrong usage, 130 after a `KeyboardInterrupt`, 141 after a broken
            pipe.
    """
    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        if debug:
            raise
        note(f"error: {error}")
        if is_full(error):  # it passes on what a program said
            note("\n".join(f"  {line}" for line in explain(error)))
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        if debug:
            raise
        note("interrupted")
        raise SystemExit(130) from None
    except BrokenPipeError:
        if not unread():
            raise
        raise SystemExit(BROKEN_PIPE) from None
    except Exception as error:
        if not debug and isinstance(error, OSError) and error.errno in NO_NAME:
            note(f"error: {(error.strerror or 'no such name').lower()}: {error.filename}")
            raise SystemExit(1) from None
        if debug or not is_full(error):
            raise
        note(f"error: {full_disk(error)}")
        raise SystemExit(1) from None


def full_disk(error: BaseException, place: Path | None = None) -> UserError:
    """What to say of a full disk (see `disks.explain`).

    Args:
        error: one that `disks.is_full`.
        place: what was being written, if the error does not say it.
    """
    return UserError(*explain(error, place))


def plain(text: str, *, lines: bool = True) -> str:
    r"""Text as a terminal may show it: what would move its cursor or colour it is written out, such as ``\x1b``.

    Args:
        text: from anywhere.
        lines: whether it may have several; otherwise a newline and a tab are written out too.
    """
    shown = _NO_TEXT.sub(_written_out, text)
    return shown if lines else re.sub(r"[\n\t]", _written_out, shown)


def _written_out(character: re.Match[str]) -> str:
    return character[0].encode("unicode_escape").decode()


def cell(text: str) -> Text:
    """A name as one cell of a table: plain, and no markup is read in it (an experiment may be called ``[/b]``)."""
    from rich.text import Text

    return Text(plain(text, lines=False))


def note(text: str) -> None:
    """Print one line of progress or advice on standard error; when nobody reads it, the work goes on."""
    try:
        sys.stderr.write(plain(text) + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        _desert(sys.stderr)


def result(text: str) -> None:
    """Print one line of a result on standard output."""
    sys.stdout.write(plain(text) + "\n")


def screen(*, error: bool = False) -> Console:
    """What prints tables: on a terminal as wide as it is, and 140 columns wide in a file or a pipe.

    Args:
        error: on standard error instead of standard output.
    """
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # `user_errors` ends it, with one exit code for all

    stream = sys.stderr if error else sys.stdout
    return Screen(stderr=error, highlight=False, width=None if stream.isatty() else 140)


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
    sys.stderr.write(f"{plain(question)} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in {"y", "yes"}:
        return True
    note("nothing was changed")
    return False


def size(number: float) -> str:
    """Return a number of bytes as a person reads it: ``1.5 GB``, which is 1,500,000,000 bytes."""
    from rich.filesize import decimal

    return decimal(int(number))


class Progress:
    """What is done of a step, in units (bytes, revisions, objects), out of a total or 0.

    A bar in place on a terminal, with the time left where the total is known; elsewhere a line every few seconds.
    """

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._begun = self._shown = time.monotonic()
        self._bar = _Terminal.add(what) if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else None

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
        return time.monotonic() - self._shown >= (EVERY if self._bar is None else EVERY_ON_TERMINAL)

    def show(self, detail: str = "") -> None:
        """Show the present state now."""
        unit = f" {self.unit}" if self.unit and self.unit != "bytes" else ""
        amount = f"{self._number(self.done)}{unit}"
        if self.total:
            share = min(1.0, self.done / self.total)
            amount = f"{self._number(self.done)}/{self._number(self.total)}{unit} ({100 * share:.0f} %)"
        line = plain(f"{amount} {detail}".rstrip(), lines=False)
        if self._bar is None:
            note(f"{self.what}: {line}{self._left()}")
        else:
            _Terminal.update(self._bar, self.done, self.total, line)

    def clear(self) -> None:
        """Leave the terminal's line empty for what comes next."""
        if self._bar is not None:
            _Terminal.remove(self._bar)
            self._bar = None

    def _left(self) -> str:
        spent = time.monotonic() - self._begun
        if not (self.total and 0 < self.done < self.total and spent > EVERY):
            return ""
        return f", about {spent * (self.total / self.done - 1):.0f} s left"

    def _number(self, value: int) -> str:
        return size(value) if self.unit == "bytes" else f"{value:,}"


class _Terminal:
    """The bars on the terminal: one display for all steps, of which several may run at once."""

    _bars: Bars | None = None

    @classmethod
    def add(cls, what: str) -> TaskID:
        if cls._bars is None:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            console = screen(error=True)
            wide = console.width >= 80
            cls._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24 if wide else 8),
                TextColumn("{task.fields[line]}", markup=False),
                *([TimeRemainingColumn()] if wide else []),
                console=console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
            )
            cls._bars.start()
        return cls._bars.add_task(plain(what, lines=False), total=None, line="")

    @classmethod
    def update(cls, bar: TaskID, done: int, total: int, line: str) -> None:
        if cls._bars is None:
            return
        width = cls._bars.console.width
        others = max(len(task.description) for task in cls._bars.tasks) + (36 if width >= 80 else 11)
        room = max(1, width - others)  # one that wraps could not be taken back
        shown = line if len(line) <= room else line[: room - 1] + "…"
        cls._bars.update(bar, completed=done, total=total or None, line=shown, refresh=True)

    @classmethod
    def remove(cls, bar: TaskID) -> None:
        if cls._bars is None:
            return
        cls._bars.remove_task(bar)
        if not cls._bars.task_ids:
            cls._bars.stop()
            cls._bars = None


@contextmanager
def progress(what: str, total: int = 0, unit: str = "bytes") -> Iterator[Progress]:
    """Show the progress of the block."""
    step = Progress(what, total, unit)
    try:
        yield step
    finally:
        step.clear()


def unread() -> bool:
    """Whether nobody reads standard output any more; from then on it leads nowhere."""
    if deserted := _is_deserted(sys.stdout):
        _desert(sys.stdout)
    return deserted


def _is_deserted(stream: IO[str]) -> bool:
    """Whether nobody reads a pipe of ours any more; a socket that broke elsewhere is another matter."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # no file behind it: a test's
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _desert(stream: IO[str]) -> None:
    """Send what is still written to a stream nowhere, so that Python's own flush at the end is quiet, too."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
