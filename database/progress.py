"""Say how far a long step is: a line that moves on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from console import note

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVERY = 5.0  # seconds between two lines where there is no terminal


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
        now = time.monotonic()
        if now - self._shown >= (0.1 if self._terminal else _EVERY):
            self._shown = now
            self.show(detail)

    def show(self, detail: str = "") -> None:
        """Show the present state now."""
        amount = (
            f"{self._number(self.done)}/{self._number(self.total)}" if self.total else self._number(self.done)
        )
        share = f" ({100 * min(1.0, self.done / self.total):.0f} %)" if self.total else ""
        unit = "" if self.unit == "bytes" else f" {self.unit}"
        line = f"{self.what}: {amount}{unit}{share} {detail}".rstrip()
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
        else:
            note(line)

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
