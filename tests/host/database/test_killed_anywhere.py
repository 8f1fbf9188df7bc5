"""SIGKILL at twenty calls of a backup, a restore and a migration: the data is whole, and the next command ends it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from backups import sets
from backups.backup import back_up
from backups.migrate import migrate
from backups.restore import restore
from database.connection import connect
from database.revision import inspect_schema
from tests.support import old_databases
from tests.support.killed import Killer
from tests.support.old_databases import statements

if TYPE_CHECKING:
    from pathlib import Path

MODULES = ("backups.backup", "backups.restore", "backups.migrate", "artifacts.local", "mlflow.store.db.utils")
FILES = 6


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def filled(folder: Path, mark: bytes) -> str:
    """Make an artifact store; returns its address."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number in range(FILES):
        (folder / str(number)).write_bytes(mark * 100)
    return str(folder)


def test_a_backup_killed_anywhere_leaves_whole_sets_alone(tmp_path: Path) -> None:
    kill = Killer(*MODULES)
    uri = old_databases.sqlite_database("3.15.1", tmp_path / "mlflow.db")
    store, folder = filled(tmp_path / "artifacts", b"a"), tmp_path / "sets"
    before = statements(tmp_path / "mlflow.db")
    calls = kill(0, _backup, uri, folder, store)
    for limit in kill.limits(calls):
        known = {backup.path for backup in sets.list_sets(folder)[0]}
        kill(limit, _backup, uri, folder, store)
        for backup in sets.list_sets(folder)[0]:
            sets.verify(backup)  # also one that was finished right before the kill
        assert known <= {backup.path for backup in sets.list_sets(folder)[0]}
        sets.verify(back_up(uri, folder, destination=store, keep=99))
        assert not list(folder.glob("*.partial"))
    assert statements(tmp_path / "mlflow.db") == before
    kill.report("backup")


def _backup(uri: str, folder: Path, store: str) -> None:
    back_up(uri, folder, destination=store, keep=99)


def test_a_migration_killed_anywhere_changes_all_or_nothing(tmp_path: Path) -> None:
    kill = Killer(*MODULES)
    source, path, folder = tmp_path / "old.db", tmp_path / "mlflow.db", tmp_path / "sets"
    old_databases.sqlite_database("3.15.1", source)
    before, uri = statements(source), f"sqlite:///{path}"
    shutil.copy(source, path)
    calls = kill(0, migrate, uri, folder)
    after = statements(path)
    assert after != before
    for limit in kill.limits(calls):
        shutil.copy(source, path)
        kill(limit, migrate, uri, folder)
        assert statements(path) in {before, after}
        kill(0, migrate, uri, folder)
        assert statements(path) == after
        assert not list(tmp_path.glob("*.migrating*"))
    kill.report("migrate")


def test_a_restore_killed_anywhere_loses_no_artifact_of_what_the_database_holds(tmp_path: Path) -> None:
    kill = Killer(*MODULES)
    stored, other, path = tmp_path / "stored.db", tmp_path / "other.db", tmp_path / "mlflow.db"
    old_databases.sqlite_database("3.10.1", other)
    store = filled(tmp_path / "artifacts", b"new")
    backup = back_up(
        old_databases.sqlite_database("3.15.1", stored), tmp_path / "sets", destination=store
    ).path
    uri, wanted = f"sqlite:///{path}", content(tmp_path / "artifacts")
    calls = 0
    for limit in (0, *range(20)):
        shutil.copy(other, path)
        before = statements(path)
        filled(tmp_path / "artifacts", b"old")
        old = content(tmp_path / "artifacts")
        (tmp_path / "artifacts" / "0").unlink()
        if not calls:
            calls = kill(0, _restore, uri, backup, store)
            after, limits = statements(path), kill.limits(calls)
            continue
        kill(next(limits), _restore, uri, backup, store)
        now = content(tmp_path / "artifacts")
        assert statements(path) in {before, after}, limit
        if statements(path) == before:
            assert {name: now[name] for name in sorted(old)[1:]} == {
                name: old[name] for name in sorted(old)[1:]
            }
        assert all(data in {old[name], wanted[name]} for name, data in now.items() if name in old)
        kill(0, _restore, uri, backup, store)
        assert content(tmp_path / "artifacts") == wanted
        assert statements(path) == after
        with connect(uri).connect() as connection:
            assert inspect_schema(connection).state == "behind"
    kill.report("restore")


def _restore(uri: str, backup: Path, store: str) -> None:
    restore(uri, backup, destination=store)
