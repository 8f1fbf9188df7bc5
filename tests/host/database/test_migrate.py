"""A migration ends at the head, or the database is what it was; a schema that does not fit is left alone."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backups.migrate import migrate, plan
from backups.restore import restore
from console import UserError
from database.connection import connect
from database.schema import prepare
from tests.support import answers, old_databases

if TYPE_CHECKING:
    from collections.abc import Callable

    from database.revision import Step

KINDS = ["sqlite", "postgresql"]
ROOT = Path(__file__).parents[3]


def command_line(*words: str) -> subprocess.CompletedProcess[str]:
    module = "database" if words[0] == "prepare" else "backups"
    argv = [sys.executable, "-m", module, *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_migration_that_fails_leaves_the_database_as_it_was(
    kind: str,
    place: str,
    old_database: Callable[[str, str], str],
    dump: Callable[[str], bytes],
    tmp_path: Path,
) -> None:
    uri = old_database("2.16.2", kind)
    before = dump(uri)

    def fail(done: int, total: int, _step: Step) -> None:
        if done == {"first": 0, "middle": total // 2, "last": total - 1}[place]:
            raise RuntimeError("made to fail")

    with pytest.raises(UserError, match=r"the migration failed at revision .*: made to fail") as error:
        migrate(uri, tmp_path / "sets", on_step=fail)
    assert "the database is as it was" in str(error.value)
    assert dump(uri) == before
    assert migrate(uri, tmp_path / "sets").after.state == "current"


@pytest.mark.parametrize("kind", KINDS)
def test_a_migration_that_meets_a_table_it_did_not_expect_says_so(
    kind: str, old_database: Callable[[str, str], str], dump: Callable[[str], bytes], tmp_path: Path
) -> None:
    uri = old_database("2.9.2", kind)
    with connect(uri).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE trace_info (mine INTEGER)")
    before = dump(uri)
    with pytest.raises(UserError, match=r"add trace tables.*trace_info.* already exists"):
        migrate(uri, tmp_path / "sets")
    assert dump(uri) == before


def test_a_migration_that_loses_rows_after_its_commit_is_undone_from_the_backup(
    old_database: Callable[[str, str], str],
    dump: Callable[[str], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from backups import migrate as module

    uri = old_database("3.10.1", "postgresql")
    before = dump(uri)

    def lossy(engine: object, on_step: object) -> None:
        from database.schema import run_migration

        run_migration(engine, on_step)  # type: ignore[arg-type]
        with connect(uri).begin() as connection:
            connection.exec_driver_sql("DELETE FROM params")

    monkeypatch.setattr(module, "run_migration", lossy)
    with pytest.raises(UserError, match="table params had 18 rows and has 0") as error:
        migrate(uri, tmp_path / "sets")
    assert "the backup was restored" in str(error.value)
    assert dump(uri) == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_set_from_before_a_migration_undoes_it(
    kind: str, old_database: Callable[[str, str], str], dump: Callable[[str], bytes], tmp_path: Path
) -> None:
    uri = old_database("3.1.4", kind)
    before = dump(uri)
    result = migrate(uri, tmp_path / "sets")
    assert result.backup is not None
    restore(uri, result.backup.path)
    assert dump(uri) == before


def test_a_sqlite_database_in_wal_mode_stays_in_it(tmp_path: Path) -> None:
    uri = old_databases.sqlite_database("3.5.1", tmp_path / "mlflow.db", wal=True)
    migrate(uri, tmp_path / "sets")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert not list(tmp_path.glob("*.migrating*"))


def test_a_live_server_keeps_a_sqlite_database_from_being_migrated(tmp_path: Path) -> None:
    uri = old_databases.sqlite_database("3.5.1", tmp_path / "mlflow.db", wal=True)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as server:
        server.execute("SELECT count(*) FROM runs").fetchone()
        with pytest.raises(UserError, match="is in use by"):
            migrate(uri, tmp_path / "sets")
    assert plan(uri).schema.state == "behind"


def test_who_uses_a_postgresql_database_is_told(
    old_database: Callable[[str, str], str],
) -> None:
    import psycopg2

    uri = old_database("3.5.1", "postgresql")
    assert plan(uri).users == []
    plain = uri.replace("postgresql+psycopg2", "postgresql")
    with closing(psycopg2.connect(plain, application_name="my-server")):
        assert plan(uri).users == ["my-server (tester from 127.0.0.1, idle)"]


def test_a_migration_does_not_wait_for_ever_for_a_transaction_left_open(
    old_database: Callable[[str, str], str],
    dump: Callable[[str], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import psycopg2

    from backups import migrate as module

    monkeypatch.setattr(module, "LOCK_TIMEOUT", 500)
    uri = old_database("3.5.1", "postgresql")
    before = dump(uri)
    plain = uri.replace("postgresql+psycopg2", "postgresql")
    with closing(psycopg2.connect(plain, application_name="a-notebook")) as session:
        session.cursor().execute("SELECT count(*) FROM experiments")
        with pytest.raises(UserError, match="lock timeout"):
            migrate(uri, tmp_path / "sets")
    assert "a-notebook (tester from 127.0.0.1, idle in transaction)" in capsys.readouterr().err
    assert dump(uri) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_that_is_ahead_is_refused_and_its_version_named(
    kind: str, old_database: Callable[[str, str], str], dump: Callable[[str], bytes], tmp_path: Path
) -> None:
    uri = old_database("3.15.1", kind)
    with connect(uri).begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'fffffffffff1'")
    before = dump(uri)
    assert plan(uri).schema.state == "ahead"
    for verb in (lambda: migrate(uri, tmp_path / "sets"), lambda: prepare(uri)):
        with pytest.raises(UserError, match=r"the schema is newer than MLflow 3\.17\.2") as error:
            verb()
        assert "use an MLflow newer than 3.17.2" in str(error.value)
    assert dump(uri) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_database_of_something_else_is_refused(
    kind: str, new_uri: Callable[[str], str], dump: Callable[[str], bytes], tmp_path: Path
) -> None:
    uri = new_uri(kind)
    with connect(uri, create=True).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE customers (name TEXT)")
    before = dump(uri)
    assert plan(uri).schema.state == "unknown"
    for verb in (lambda: migrate(uri, tmp_path / "sets"), lambda: prepare(uri)):
        with pytest.raises(UserError, match=r"not an MLflow database: it holds 1 other tables \(customers\)"):
            verb()
    assert dump(uri) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", ["empty", "current", "behind", "ahead", "unknown"])
def test_check_tells_the_five_states_apart_and_exits_with_0_only_when_current(
    state: str,
    kind: str,
    new_uri: Callable[[str], str],
    old_database: Callable[[str, str], str],
    dump: Callable[[str], bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from backups import __main__ as command
    from database import revision

    uri = old_database("3.15.1", kind) if state == "behind" else new_uri(kind)
    if state != "behind":
        connect(uri, create=True).dispose()
    if state in {"current", "ahead"}:
        prepare(uri)
    with connect(uri).begin() as connection:
        if state == "ahead":
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'fffffffffff1'")
        if state == "unknown":
            connection.exec_driver_sql("CREATE TABLE customers (name TEXT)")
    monkeypatch.setitem(revision.RELEASED_HEADS, "fffffffffff1", "3.99.0")
    before = dump(uri)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["backups", "migrate", f"--backend-store-uri={uri}", *words])
        with pytest.raises(SystemExit) as end:
            command.main()
        return int(end.value.code or 0), *capsys.readouterr()

    code, answer, notes = run("--check", "--json")
    assert code == (0 if state == "current" else 1)
    assert json.loads(answer)["state"] == state
    assert f"the schema is {state}: " in notes
    pending = [step["title"] for step in json.loads(answer)["pending"]]
    assert all(title and "\n" not in title for title in pending)
    if state == "behind":
        assert [line.strip().partition("  ")[2] for line in notes.splitlines()[1:]] == pending
        assert "5 revisions behind the head of MLflow 3.17.2" in notes
    if state in {"ahead", "unknown"}:
        code, answer, notes = run("--yes")
        assert (code, answer) == (1, "")
        assert ("use MLflow 3.99.0 or later" if state == "ahead" else "nothing was changed") in notes
    assert dump(uri) == before


@pytest.mark.parametrize("kind", KINDS)
def test_two_that_prepare_an_empty_database_at_once_both_succeed(
    kind: str, new_uri: Callable[[str], str]
) -> None:
    uri = new_uri(kind)
    argv = [sys.executable, "-m", "database", "prepare", f"--backend-store-uri={uri}"]
    both = [subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert plan(uri).schema.state == "current"


@pytest.mark.parametrize("kind", KINDS)
def test_a_creation_that_was_cut_short_is_finished(kind: str, new_uri: Callable[[str], str]) -> None:
    from mlflow.store.tracking.dbmodels.initial_models import Base

    uri = new_uri(kind)
    Base.metadata.create_all(connect(uri, create=True))
    assert plan(uri).schema.state == "empty"
    assert prepare(uri).state == "current"


def test_the_command_line_says_what_is_behind_and_migrates_only_when_told(
    old_database: Callable[[str, str], str], tmp_path: Path
) -> None:
    store = f"--backend-store-uri={old_database('3.15.1', 'sqlite')}"
    to = f"--to={tmp_path / 'sets'}"

    refused = command_line("prepare", store)
    assert refused.returncode == 1
    assert "error: the schema is 5 revisions behind" in refused.stderr
    assert "invoke migrate" in refused.stderr

    checked = command_line("migrate", store, "--check", "--json")
    assert checked.returncode == 1
    answer = answers.read("migrate", checked.stdout)
    assert answer["state"] == "behind"
    assert answer["pending"][0] == {"revision": "1971f2d9a75b", "title": "add trace archival candidate index"}

    unasked = command_line("migrate", store, to)
    assert unasked.returncode == 1
    assert "add --yes to go ahead" in unasked.stderr
    assert not (tmp_path / "sets").exists()

    migrated = command_line("migrate", store, to, "--yes", "--json")
    assert migrated.returncode == 0, migrated.stderr
    result = answers.read("migrate", migrated.stdout)
    assert (result["state"], result["migrated"], result["before"]["state"]) == ("current", 5, "behind")
    assert command_line("migrate", store, "--check").returncode == 0
    assert command_line("prepare", store).returncode == 0

    listed = answers.read("backups", command_line("backups", to, "--verify", "--json").stdout)
    assert [backup["path"] for backup in listed["sets"]] == [result["backup"]]
    back = command_line("restore", store, f"--backup={result['backup']}", "--yes", "--json")
    assert answers.read("restore", back.stdout)["state"] == "behind"
