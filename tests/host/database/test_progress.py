"""Long work says how far it is: a bar that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
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
import console
console.EVERY = console.EVERY_ON_TERMINAL = 0
from backups.backup import back_up
from backups.restore import restore
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
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    written: list[bytes] = []

    def read() -> None:
        try:
            while some := os.read(ours, 4096):
                written.append(some)
        except OSError:  # the other end is closed
            pass

    own_width = os.environ | {"TERM": "xterm", "COLUMNS": ""}  # which pytest sets
    process = subprocess.Popen(argv, cwd=ROOT, stderr=theirs, env=own_width)
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait(300)
    reader.join(60)
    os.close(ours)
    text = b"".join(written).decode()
    assert code == 0, text
    return text


def shown(written: str) -> str:
    """Return what a terminal was given without the sequences that move and colour."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)


STEPS = (
    r"pg_dump{bar} \d+/\d+ rows \(\d+ %\) [\d.]+ \w+ written",
    r"artifacts{bar} \d+/20 objects \(\d+ %\) [\d.]+ kB",
    r"verifying the backup{bar} [\d.]+ kB/[\d.]+ kB \(\d+ %\)",
    r"adding artifacts{bar} \d+/20 objects \(\d+ %\) [\d.]+ kB",
    r"pg_restore{bar} [\d.]+ kB/[\d.]+ kB \(\d+ %\) \d+/\d+ rows",
    r"pg_restore{bar} [\d.]+ kB/[\d.]+ kB \(100 %\) building indexes and counting rows",
)


def test_a_terminal_shows_a_bar_with_bytes_and_rows_done_and_to_do(command: list[str]) -> None:
    written = on_a_terminal(command, 140)
    assert "\x1b[" in written, "a bar is drawn in place"
    for step in STEPS:
        line = step.replace("{bar}", r" [━╸╺]+")
        assert re.search(line, shown(written)), f"{line} is not in\n{shown(written)}"


def test_a_line_does_not_wrap_on_a_narrow_terminal(command: list[str]) -> None:
    moving = re.findall(r"\w[^\r\n]*━[^\r\n]*", shown(on_a_terminal(command, 40)))
    assert any(line.startswith("pg_restore ") for line in moving)
    assert max(map(len, moving)) <= 40


def test_elsewhere_there_are_plain_lines(command: list[str]) -> None:
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for step in STEPS:
        assert re.search(rf"^{step.replace('{bar}', ':')}", answer.stderr, re.MULTILINE), answer.stderr
    assert "\x1b" not in answer.stderr
