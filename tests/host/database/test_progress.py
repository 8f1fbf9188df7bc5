"""Long work says how far it is: a bar that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from database.schema import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
# a backup and a restore that are small and still show every step
SCRIPT = """
import sys
from pathlib import Path
from database import progress
progress.EVERY = progress.EVERY_ON_TERMINAL = 0
from database.backup import back_up
from database.restore import restore
one = back_up(sys.argv[1], Path(sys.argv[3]), destination=sys.argv[4])
restore(sys.argv[2], one.path, destination=sys.argv[5])
"""


@pytest.fixture
def command(
    old_database: Callable[[str, str], str], new_uri: Callable[[str], str], tmp_path: Path
) -> list[str]:
    source, target = old_database("3.15.1", "postgresql"), new_uri("postgresql")
    prepare(target)
    (tmp_path / "store").mkdir()
    for number in range(20):
        (tmp_path / "store" / str(number)).write_bytes(b"x" * 1000)
    folders = [str(tmp_path / name) for name in ("sets", "store", "back")]
    return [sys.executable, "-c", SCRIPT, source, target, *folders]


def on_a_terminal(argv: list[str], columns: int) -> str:
    """Run a program whose standard error is a terminal; returns what it wrote there."""
    ours, theirs = pty.openpty()
    pty.fcntl.ioctl(theirs, pty.tty.TIOCSWINSZ, columns.to_bytes(4, sys.byteorder) * 2)  # type: ignore[attr-defined]
    written: list[bytes] = []

    def read() -> None:
        try:
            while some := os.read(ours, 4096):
                written.append(some)
        except OSError:  # the other end is closed
            pass

    process = subprocess.Popen(argv, cwd=ROOT, stderr=theirs)
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait(300)
    reader.join(60)
    os.close(ours)
    text = b"".join(written).decode()
    assert code == 0, text
    return text


STEPS = (
    r"pg_dump{bar} \d+/\d+ rows \(\d+ %\) [\d.]+ k?B\w* written",
    r"artifacts{bar} \d+/20 objects \(\d+ %\) [\d.]+ kB",
    r"verifying the backup{bar} [\d.]+ kB/[\d.]+ kB \(\d+ %\)",
    r"adding artifacts{bar} \d+/20 objects \(\d+ %\) [\d.]+ kB",
    r"pg_restore{bar} [\d.]+ kB/[\d.]+ kB \(\d+ %\) \d+/\d+ rows",
    r"pg_restore{bar} [\d.]+ kB/[\d.]+ kB \(100 %\) building indexes and counting rows",
)
