"""What reaches a terminal, a pipe and a file: sizes, progress, names that are no text, and readers that leave."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

import console
from console import UserError, cell, full_disk, note, plain, progress, screen, size, user_errors

ROOT = Path(__file__).parents[2]
ESCAPE = "\x1b[31mred\x1b[0m \x9b2J \u202etxt.exe \udcff"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1500, "1.5 kB"), (2.5e9, "2.5 GB")],
)
def test_a_size_is_written_in_one_way(number: float, text: str) -> None:
    assert size(number) == text


def test_what_would_move_a_terminals_cursor_or_turn_its_text_is_written_out() -> None:
    assert plain(ESCAPE) == r"\x1b[31mred\x1b[0m \x9b2J \u202etxt.exe \udcff"
    assert plain("one\n\ttwo ünï 🧪") == "one\n\ttwo ünï 🧪"
    assert plain("one\ntwo", lines=False) == r"one\ntwo"


def test_notes_errors_and_tables_hold_no_raw_name(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    note(f"stays: {ESCAPE}")
    with pytest.raises(SystemExit), user_errors():
        raise UserError(f"no experiment '{ESCAPE}'")
    table = Table("name")
    table.add_row(cell(f"[/foo] [bold]{ESCAPE}"))
    screen().print(table)

    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "[/foo] [bold]" in captured.out


def test_a_name_that_no_file_can_have_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, user_errors():
        Path("x" * 300).stat()
    assert end.value.code == 1
    assert capsys.readouterr().err == f"error: file name too long: {'x' * 300}\n"


def test_elsewhere_than_on_a_terminal_progress_is_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "EVERY", 0)
    with progress("copying", 2000) as step:
        step.add(500, ESCAPE)

    line = capsys.readouterr().err
    assert line.startswith("copying: 500 bytes/2.0 kB (25 %) \\x1b[31mred")
    assert "\x1b" not in line


@pytest.mark.parametrize(
    "body", ["emit_json(['x' * 99] * 9999)", "[result('x' * 99) for _ in range(9999)]", "table()"]
)
def test_a_reader_that_leaves_ends_it_without_a_word(body: str) -> None:
    program = f"""
from console import *
def table():
    from rich.table import Table
    table = Table("x")
    for _ in range(9999): table.add_row("x" * 99)
    screen().print(table)
with user_errors(): {body}
"""
    argv = [sys.executable, "-c", program]
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}  # else Python itself drops the rest of a long write
    with subprocess.Popen(argv, cwd=ROOT, env=buffered, stdout=PIPE, stderr=PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == console.BROKEN_PIPE


def test_work_goes_on_when_nobody_reads_its_notes(tmp_path: Path) -> None:
    program = f"""
from console import *
with user_errors():
    input()
    note("deleting"); note("deleted")
    open({str(tmp_path / "whole")!r}, "w").close()
"""
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, cwd=ROOT, stdin=PIPE, stderr=PIPE) as process:
        assert process.stdin
        assert process.stderr
        process.stderr.close()
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(60) == 0
    assert (tmp_path / "whole").exists()


def test_a_pipe_that_broke_elsewhere_is_a_defect_and_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with pytest.raises(BrokenPipeError), user_errors():
        raise BrokenPipeError(errno.EPIPE, "a socket's")


def test_a_full_disk_is_named_with_what_frees_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, user_errors():
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "new" / "file"))

    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no space left on /")
    assert f"while writing {tmp_path / 'new' / 'file'}" in error
    assert "are free" in error
    assert "invoke cleanup" in error


def test_a_quota_is_no_full_disk(tmp_path: Path) -> None:
    assert full_disk(OSError(errno.EDQUOT, ""), tmp_path).message.startswith("over quota on /")
