"""Say how far a long step is: a line that moves on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from console import note

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY = 5.0  # seconds between two lines where there is no terminal
EVERY_ON_TERMINAL = 0.1  # seconds
_BAR = 24  # columns


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
