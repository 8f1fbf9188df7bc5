"""SIGKILL or a full disk in the middle of anything: the data is as before, and the next try works."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from console import UserError
from database import sets
from database.backup import back_up
from database.connection import connect
from database.migrate import migrate
from database.restore import restore
from database.revision import inspect_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.host.database.servers import Postgres

KINDS = ["sqlite", "postgresql"]
ROOT = Path(__file__).parents[3]
TABLES = ("runs", "metrics", "params", "alembic_version")


def run_until_killed(script: str, *words: object) -> None:
    """Run a script that kills itself; `die()` and `die_at(number)` are there for it."""
    start = """
import os, signal, sys
from pathlib import Path
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def die_at(number):
    seen = []
    def count(*args, **kwargs):
        seen.append(1)
        if len(seen) == number:
            die()
    return count
"""
    argv = [sys.executable, "-c", start + script, *map(str, words)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def wait_for_orphans(uri: str) -> None:
    """Wait until PostgreSQL has noticed that a killed process' psql is at its end."""
    if uri.startswith("sqlite"):
        return
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND application_name LIKE 'mlflow-stacks%%'"
    )
    deadline = time.monotonic() + 120
    with connect(uri).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while connection.exec_driver_sql(query).scalar():
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture
def dump(postgres: Postgres) -> Callable[[str], bytes]:
    def everything(uri: str) -> bytes:
        if uri.startswith("postgresql"):
            return postgres.dump(uri.rpartition("/")[2])
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
            return "\n".join(connection.iterdump()).encode()

    return everything


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_migration_changes_nothing(
    kind: str, old_database: Callable[[str, str], str], dump: Callable[[str], bytes], tmp_path: Path
) -> None:
    uri = old_database("2.9.2", kind)
    before = dump(uri)
    script = """
from database.migrate import migrate
migrate(sys.argv[1], Path(sys.argv[2]), on_step=die_at(20))
"""
    run_until_killed(script, uri, tmp_path / "sets")
    assert dump(uri) == before
    assert migrate(uri, tmp_path / "sets").after.state == "current"
    assert not list(tmp_path.glob("*.migrating*"))


def test_a_sqlite_migration_killed_while_it_is_put_in_place_changes_nothing(
    old_database: Callable[[str, str], str], dump: Callable[[str], bytes], tmp_path: Path
) -> None:
    uri = old_database("2.9.2", "sqlite")
    before = dump(uri)
    script = """
from database import migrate, sqlite
sqlite._PAGES = 10
replace = sqlite.replace_content
def killed(*args):
    sqlite.progress = lambda what: Bar()
    replace(*args)
class Bar:
    __enter__ = lambda self: self
    __exit__ = lambda *_: None
    at = die_at(5)
sqlite.replace_content = killed
migrate.migrate(sys.argv[1], Path(sys.argv[2]))
"""
    run_until_killed(script, uri, tmp_path / "sets")
    assert dump(uri) == before
    assert migrate(uri, tmp_path / "sets").after.state == "current"


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_backup_leaves_no_set_and_the_last_one_stays(
    kind: str, old_database: Callable[[str, str], str], tmp_path: Path
) -> None:
    uri, folder = old_database("3.15.1", kind), tmp_path / "sets"
    for number in range(10):
        (tmp_path / "artifacts").mkdir(exist_ok=True)
        (tmp_path / "artifacts" / str(number)).write_bytes(os.urandom(100))
    good = back_up(uri, folder, destination=str(tmp_path / "artifacts"))
    script = """
from artifacts.local import LocalStore
from database.backup import back_up
LocalStore.fetch = die_at(5)
back_up(sys.argv[1], Path(sys.argv[2]), destination=sys.argv[3])
"""
    run_until_killed(script, uri, folder, tmp_path / "artifacts")
    assert [one.path for one in sets.list_sets(folder)[0]] == [good.path]
    (unfinished,) = folder.glob("*.partial")
    with pytest.raises(UserError, match="is an unfinished backup: it has no manifest"):
        restore(uri, unfinished)
    after = back_up(uri, folder, destination=str(tmp_path / "artifacts"))
    assert [one.path for one in sets.list_sets(folder)[0]] == [good.path, after.path]
    assert not unfinished.exists()


PATCHES = {
    "while pg_restore is loaded": "database.postgresql as m; m.CHUNK = 5000; m.progress = lambda *_: Bar()",
    "while rows are copied": "database.tablecopy as m; m._BATCH = 10; m.progress = lambda *_: Bar()",
    "before the tables are swapped": "database.tablecopy as m; m._swap = die",
    "while pages are copied": "database.sqlite as m; m._PAGES = 10; m.progress = lambda what: Bar()",
}


@pytest.mark.parametrize(
    ("stored", "target", "moment"),
    [
        ("postgresql", "postgresql", "while pg_restore is loaded"),
        ("sqlite", "postgresql", "while rows are copied"),
        ("sqlite", "postgresql", "before the tables are swapped"),
        ("sqlite", "sqlite", "while pages are copied"),
    ],
)
def test_a_killed_restore_changes_nothing(
    stored: str,
    target: str,
    moment: str,
    old_database: Callable[[str, str], str],
    dump: Callable[[str], bytes],
    tmp_path: Path,
) -> None:
    one = back_up(old_database("3.15.1", stored), tmp_path / "sets")
    uri = old_database("3.10.1", target)
    before = dump(uri)
    script = f"""
class Bar:
    __enter__ = lambda self: self
    __exit__ = lambda *_: None
    at = add = die_at(10)
import {PATCHES[moment]}
from database.restore import restore
restore(sys.argv[1], Path(sys.argv[2]))
"""
    run_until_killed(script, uri, one.path)
    wait_for_orphans(uri)
    assert dump(uri) == before
    with connect(uri).connect() as connection:
        assert inspect_schema(connection).revision == "1b5f0d9ad7c1"
    restore(uri, one.path)
    with connect(uri).connect() as connection:
        assert inspect_schema(connection).state == ("current" if stored != target else "behind")
        if target == "postgresql":  # what was prepared beside the old tables is gone, too
            left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'mlflow%%'"
            assert connection.exec_driver_sql(left).scalar() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 400 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as filler:
        while os.statvfs(folder).f_bavail:
            filler.write(b"x" * 4096)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_during_a_backup_leaves_no_set(
    kind: str,
    old_database: Callable[[str, str], str],
    dump: Callable[[str], bytes],
    small_disk: Path,
    tmp_path: Path,
) -> None:
    uri = old_database("2.9.2", kind)
    before = dump(uri)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "big").write_bytes(os.urandom(500_000))
    with pytest.raises(UserError, match=r"[Nn]o space left|not enough room") as error:
        back_up(uri, small_disk / "sets", destination=str(tmp_path / "artifacts"))
    assert str(small_disk) in str(error.value)
    assert sets.list_sets(small_disk / "sets") == ([], [])
    fill(small_disk)
    with pytest.raises(UserError, match=r"[Nn]o space left|not enough room"):
        migrate(uri, small_disk / "sets")
    assert dump(uri) == before
    assert sets.list_sets(small_disk / "sets") == ([], [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_during_a_sqlite_restore_leaves_the_old_data(
    old_database: Callable[[str, str], str], small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from database import restore as module

    one = back_up(old_database("3.15.1", "sqlite"), tmp_path / "sets")
    path = small_disk / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE kept (x)")
    monkeypatch.setattr(module, "require_room", lambda *_: None)  # as if the room had gone afterwards
    with pytest.raises(UserError, match="cannot restore to"):
        restore(f"sqlite:///{path}", one.path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("kept",)]
