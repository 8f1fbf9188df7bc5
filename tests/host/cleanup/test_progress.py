"""What a cleanup shows while it works: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import itertools
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cleanup import Filters, display, plan
from database.connection import connect
from tests.support.many import add_runs

if TYPE_CHECKING:
    import pytest

    from tests.support.cleaned import World

ROOT = Path(__file__).parents[3]
RUNS = 300


def argv(world: World) -> list[str]:
    words = [sys.executable, "-m", "cleanup", "--yes", "--only=runs", "--backend-store-uri", world.uri]
    return [*words, "--artifacts-destination", world.destination]


def test_a_terminal_shows_a_bar_with_runs_rows_objects_bytes_and_the_time_left(local_world: World) -> None:
    add_runs(local_world, RUNS, local_world.ids["two"])
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        argv(local_world),
        cwd=ROOT,
        stderr=theirs,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "140"},
    )
    os.close(theirs)
    seen = b""
    while piece := _read(ours):
        seen += piece
    os.close(ours)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    last = [line for line in re.split(r"[\r\n]+", text) if "rows/s" in line][-1]
    assert "\x1b[" in seen.decode(), "a bar is drawn in place"
    assert re.search(
        r"deleting [━╸╺]+ \d+/\d+ \(\d+ %\) [\d,]+ runs, [\d,]+ rows/s, [\d,]+ objects, [\d.]+ \w+ freed",
        last,
    ), last
    assert re.search(r"(\d|-):(\d\d|--):(\d\d|--)$", last.rstrip()), last  # not known yet where it was quick


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # what Linux says when nobody holds the other end any more
        return b""


def test_elsewhere_there_are_plain_lines(
    local_world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One every few seconds, here of a clock that is ours."""
    engine = connect(local_world.uri)
    planned = plan(engine, local_world.destination, Filters(only=("runs",)), count=False)
    engine.dispose()
    total = sum(planned.counts.values())
    monkeypatch.setattr("time.monotonic", itertools.count(0, 6).__next__)
    with display.Bar(planned) as bar:
        bar.advance(kind="run", things=1, rows=1200, objects=3, size=2**20)
    line = capsys.readouterr().err
    share = f"1/{total} ({100 / total:.0f} %) 1 runs, "
    assert re.fullmatch(
        re.escape(f"deleting: {share}") + r"\d+ rows/s, 3 objects, 1.0 MB freed, about \d+ s left\n", line
    ), line


def test_a_pipe_gets_no_control_sequences(local_world: World) -> None:
    answer = subprocess.run(argv(local_world), cwd=ROOT, capture_output=True, text=True, check=True)
    assert "deleted " in answer.stderr
    assert "\x1b" not in answer.stderr
    assert "\r" not in answer.stderr
