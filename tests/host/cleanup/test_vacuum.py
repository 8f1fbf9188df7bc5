"""What a cleanup says about the disk, and gives back of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.many import add_metrics

if TYPE_CHECKING:
    from develop.scratch.servers import Postgres
    from tests.support.cleaned import World

MIB = 2**20
ROWS = 120_000


def on_disk(world: World, server: Postgres) -> int:
    """Return the bytes of the files that hold the database, asked of the file system."""
    if world.uri.startswith("sqlite"):
        files = list(Path(world.uri.removeprefix("sqlite:///")).parent.glob("mlflow.db*"))
    else:
        number = world.rows("SELECT oid FROM pg_database WHERE datname = current_database()")[0]
        files = list((server.data / "base" / str(number)).iterdir())
    return sum(path.stat().st_size for path in files)


def in_bytes(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"kB": 1000, "MB": 1_000_000}[unit]


def test_vacuum_gives_the_disk_back_and_says_how_much(
    world: World, postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = on_disk(world, postgres)
    add_metrics(world, world.ids["plain-deleted"], ROWS)
    full = on_disk(world, postgres)
    assert full > empty + 8 * MIB
    world.cleanup("--yes", "--vacuum")
    after = on_disk(world, postgres)
    assert after < empty + MIB
    said = re.search(r"database: (.+) before, (.+) now", capsys.readouterr().err)
    assert said
    assert [in_bytes(size) for size in said.groups()] == pytest.approx([full, after], abs=MIB / 4)
    world.assert_whole()


def test_without_vacuum_a_large_cleanup_says_who_keeps_the_space_and_a_later_vacuum_gives_it_back(
    world: World, postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = on_disk(world, postgres)
    add_metrics(world, world.ids["plain-deleted"], ROWS)
    world.cleanup("--yes")
    said = capsys.readouterr().err
    assert "the database keeps the space of deleted rows" in said
    assert "--vacuum gives it back" in said
    assert on_disk(world, postgres) > empty + 8 * MIB
    world.cleanup("--yes", "--only=runs", "--vacuum")
    assert on_disk(world, postgres) < empty + MIB
    world.assert_whole()


def test_a_small_cleanup_says_nothing_about_the_disk(
    local_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    local_world.cleanup("--yes")
    assert "vacuum" not in capsys.readouterr().err


def test_a_vacuum_that_is_kept_out_says_so_and_harms_nothing(
    s3_world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody reads in a transaction that does not end."""
    monkeypatch.setattr("cleanup.vacuum.PATIENCE", 1)
    with s3_world.engine.connect() as reader:
        reader.exec_driver_sql("SELECT * FROM experiments")
        s3_world.cleanup("--yes", "--only=models", "--vacuum", code=1)
    assert "the space was not given back" in capsys.readouterr().err
    s3_world.assert_whole()
