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

from backups import sets
from backups.backup import back_up
from backups.migrate import migrate
from backups.restore import restore
from console import UserError
from database.connection import connect
from database.revision import inspect_schema
from tests.support import old_databases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from develop.scratch.servers import Postgres

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
    answer = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == -signal.SIGKILL, answer.stderr


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_migration_changes_nothing(
    kind: str, old_database: Callable[[str, str], str], dump: Callable[[str], bytes], tmp_path: Path
) -> None:
    uri = old_database("2.9.2", kind)
    before = dump(uri)
    script = """
from backups.migrate import migrate
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
from database import sqlitefile
from backups import migrate
sqlitefile._PAGES = 10
replace = sqlitefile.replace_content
def killed(*args):
    sqlitefile.progress = lambda what: Bar()
    replace(*args)
class Bar:
    __enter__ = lambda self: self
    __exit__ = lambda *_: None
    at = die_at(5)
sqlitefile.replace_content = killed
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
from backups.backup import back_up
LocalStore.fetch = die_at(5)
back_up(sys.argv[1], Path(sys.argv[2]), destination=sys.argv[3])
"""
    run_until_killed(script, uri, folder, tmp_path / "artifacts")
    assert [backup.path for backup in sets.list_sets(folder)[0]] == [good.path]
    (unfinished,) = folder.glob("*.partial")
    with pytest.raises(UserError, match="is an unfinished backup: it has no manifest"):
        restore(uri, unfinished)
    after = back_up(uri, folder, destination=str(tmp_path / "artifacts"))
    assert [backup.path for backup in sets.list_sets(folder)[0]] == [good.path, after.path]
    assert not unfinished.exists()


PATCHES = {
    "while pg_restore is loaded": "database.replacing as m; m.CHUNK = 5000; m.progress = lambda *_: Bar()",
    "while rows are copied": "database.tablecopy as m; m._BATCH = 10; m.progress = lambda *_: Bar()",
    "before the tables are swapped": "database.tablecopy as m; m._swap = die",
    "while pages are copied": "database.sqlitefile as m; m._PAGES = 10; m.progress = lambda what: Bar()",
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
    backup = back_up(old_database("3.15.1", stored), tmp_path / "sets")
    uri = old_database("3.10.1", target)
    before = dump(uri)
    script = f"""
class Bar:
    __enter__ = lambda self: self
    __exit__ = lambda *_: None
    at = add = die_at(10)
import {PATCHES[moment]}
from backups.restore import restore
restore(sys.argv[1], Path(sys.argv[2]))
"""
    run_until_killed(script, uri, backup.path)
    wait_for_orphans(uri)
    assert dump(uri) == before
    with connect(uri).connect() as connection:
        assert inspect_schema(connection).revision == "1b5f0d9ad7c1"
    restore(uri, backup.path)
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


@pytest.fixture
def small_database(postgres: Postgres) -> Iterator[tuple[str, Path]]:
    """Make a database of an older MLflow on a file system of its own; gives its URI and that file system."""
    folder = postgres.data.parent / "small"  # where the server's user may go
    folder.mkdir()
    owner = postgres.data.stat()
    options = f"size=64m,uid={owner.st_uid},gid={owner.st_gid},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
    postgres.sql(f"CREATE TABLESPACE small LOCATION '{folder}'")
    postgres.sql("CREATE DATABASE small TABLESPACE small")
    postgres.sql("", "small", stdin=old_databases.script("3.10.1", "postgresql"))
    yield postgres.uri("small"), folder
    (folder / "filler").unlink(missing_ok=True)
    postgres.sql("DROP DATABASE small WITH (FORCE)")
    postgres.sql("DROP TABLESPACE small")
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
    from database import sqlite as module

    backup = back_up(old_database("3.15.1", "sqlite"), tmp_path / "sets")
    path = small_disk / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE kept (x)")
    monkeypatch.setattr(module, "require_room", lambda *_: None)  # as if the room had gone afterwards
    with pytest.raises(UserError, match="cannot restore to"):
        restore(f"sqlite:///{path}", backup.path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("kept",)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_during_a_postgresql_restore_leaves_the_old_data(
    old_database: Callable[[str, str], str],
    small_database: tuple[str, Path],
    dump: Callable[[str], bytes],
    tmp_path: Path,
) -> None:
    uri, disk = small_database
    before = dump(uri)
    for stored in KINDS:
        backup = back_up(old_database("3.15.1", stored), tmp_path / "sets")
        fill(disk)
        with pytest.raises(UserError, match="No space left on device"):
            restore(uri, backup.path)
        (disk / "filler").unlink()
        assert dump(uri) == before
    restore(uri, backup.path)
    assert dump(uri) != before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_for_the_artifacts_of_a_restore_leaves_the_old_data(
    kind: str,
    old_database: Callable[[str, str], str],
    dump: Callable[[str], bytes],
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from backups import object_restore

    (tmp_path / "artifacts").mkdir()
    for number in range(10):
        (tmp_path / "artifacts" / str(number)).write_bytes(os.urandom(50_000))
    backup = back_up(old_database("3.15.1", kind), tmp_path / "sets", destination=str(tmp_path / "artifacts"))
    uri = old_database("3.10.1", kind)
    (small_disk / "9").write_bytes(b"old")
    before = dump(uri)
    with pytest.raises(UserError, match=rf"not enough room in {small_disk}: what is to be restored needs"):
        restore(uri, backup.path, destination=str(small_disk))
    assert [path.name for path in small_disk.iterdir()] == ["9"]
    monkeypatch.setattr(object_restore, "require_room", lambda *_: None)  # as if the room had gone afterwards
    with pytest.raises(UserError, match="No space left on device") as error:
        restore(uri, backup.path, destination=str(small_disk))
    assert "make room there" in str(error.value)
    assert dump(uri) == before
    assert (small_disk / "9").read_bytes() == b"old"
    assert not list(small_disk.glob(".*"))


def test_a_restore_killed_among_its_artifacts_goes_on_when_it_is_run_again(
    old_database: Callable[[str, str], str], dump: Callable[[str], bytes], tmp_path: Path
) -> None:
    def content(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    store = tmp_path / "artifacts"
    store.mkdir()
    for number in range(10):
        (store / str(number)).write_bytes(bytes([number]) * 100)
    stored = old_database("3.15.1", "sqlite")
    backup = back_up(stored, tmp_path / "sets", destination=str(store))
    wanted = content(store)
    uri = old_database("3.10.1", "sqlite")
    before = dump(uri)
    script = """
from artifacts.local import LocalStore
from backups.restore import restore
put, count = LocalStore.put, die_at(int(sys.argv[4]))
LocalStore.put = lambda *words: (count(), put(*words))
restore(sys.argv[1], Path(sys.argv[2]), destination=sys.argv[3])
"""
    for number in range(5):
        (store / str(number)).unlink()
        (store / str(number + 5)).write_bytes(b"old")
    run_until_killed(script, uri, backup.path, store, 3)  # while what is missing is added
    assert dump(uri) == before
    assert [(store / str(number)).read_bytes() for number in range(5, 10)] == [b"old"] * 5
    run_until_killed(
        script, uri, backup.path, store, 6
    )  # while what differs is replaced: the database is restored
    assert dump(uri) == dump(stored)
    restore(uri, backup.path, destination=str(store))
    assert content(store) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_killed_during_the_dump_leaves_no_set(
    kind: str, old_database: Callable[[str, str], str], dump: Callable[[str], bytes], tmp_path: Path
) -> None:
    uri = old_database("3.15.1", kind)
    before = dump(uri)
    script = """
from database import catalog, sqlitefile
from backups import backup
catalog.count_rows = sqlitefile.check = die
backup.back_up(sys.argv[1], Path(sys.argv[2]))
"""
    run_until_killed(script, uri, tmp_path / "sets")
    wait_for_orphans(uri)
    assert dump(uri) == before
    assert sets.list_sets(tmp_path / "sets")[0] == []
    sets.verify(back_up(uri, tmp_path / "sets"))
    assert not list((tmp_path / "sets").glob("*.partial"))
