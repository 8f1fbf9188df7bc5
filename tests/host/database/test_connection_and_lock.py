"""connect() says what is wrong; maintenance_lock() lets one in."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backups.backup import back_up
from console import UserError
from database.address import redact
from database.connection import connect
from database.dialect import maintenance_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from database.postgresql import PostgreSQL
    from develop.scratch.servers import Postgres

KINDS = ["sqlite", "postgresql"]
ROOT = Path(__file__).parents[3]
HOLDER = """
import sys, time
from database.connection import connect
from database.dialect import maintenance_lock
with maintenance_lock(connect(sys.argv[1], create=True), "cleanup"):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(uri: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, uri], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_passwords_are_redacted() -> None:
    assert redact("postgresql://me:p@ss/word@host:5432/db") == "postgresql://me:***@host:5432/db"
    assert redact("postgresql://me@host/db?password=abc&x=1") == "postgresql://me@host/db?password=***&x=1"
    assert redact("sqlite:////tmp/mlflow.db") == "sqlite:////tmp/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mlruns", "not a database URI"),
        ("http://127.0.0.1:5000", "not a database URI"),
        ("mysql://me:pw@host/db", "no support for databases of kind 'mysql'"),
        ("sqlite://", "in-memory"),
        ("sqlite:////nowhere/at/all.db", "no SQLite database"),
        ("sqlite:////tmp", "is a folder"),
    ],
)
def test_a_uri_that_cannot_work_is_refused_with_its_reason(uri: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        connect(uri)
    assert "pw" not in str(error.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("hello, this is not a database at all" * 100)
    with pytest.raises(UserError, match="not a SQLite database"):
        connect(f"sqlite:///{tmp_path}/x.db")


def test_a_missing_sqlite_file_is_created_only_when_asked(tmp_path: Path) -> None:
    connect(f"sqlite:///{tmp_path}/new/x.db", create=True).dispose()
    assert (tmp_path / "new").is_dir()


def test_sqlite_connections_enforce_foreign_keys(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "x.db").close()
    with connect(f"sqlite:///{tmp_path}/x.db", create=True).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 20_000


def test_postgresql_refusals_say_why_and_hide_the_password(postgres: Postgres) -> None:
    good = postgres.uri("postgres")
    for uri, message in (
        (good.replace("s3cret-pass", "wr0ng"), "refused the user"),
        (good.replace("/postgres", "/nothere"), "no such database"),
        (good.replace(str(postgres.port), "1"), "does not answer"),
    ):
        with pytest.raises(UserError, match=message) as error:
            connect(uri)
        assert "s3cret" not in str(error.value)
        assert "wr0ng" not in str(error.value)


def test_the_password_may_come_from_a_password_file(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"127.0.0.1:{postgres.port}:*:tester:s3cret-pass\n")
    passfile.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    engine = connect(f"postgres://tester@127.0.0.1:{postgres.port}/postgres")
    assert engine.url.drivername == "postgresql+psycopg2"


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_process_is_told_who_holds_the_lock(kind: str, new_uri: Callable[[str], str]) -> None:
    uri = new_uri(kind)
    process = hold(uri)
    try:
        with (
            pytest.raises(UserError, match=rf"held by cleanup \(process {process.pid} on .+\) since 20"),
            maintenance_lock(connect(uri, create=True), "migrate", 0),
        ):
            pass
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_holder_leaves_no_lock_and_the_waiting_one_gets_it(
    kind: str, new_uri: Callable[[str], str]
) -> None:
    uri = new_uri(kind)
    process = hold(uri)
    threading.Timer(1, lambda: os.kill(process.pid, signal.SIGKILL)).start()
    with maintenance_lock(connect(uri, create=True), "migrate", 120) as lock:
        lock.check()
    process.wait()
    with maintenance_lock(connect(uri, create=True), "migrate", 0):
        pass


def test_a_lost_connection_is_noticed(postgres: Postgres, new_uri: Callable[[str], str]) -> None:
    engine = connect(new_uri("postgresql"))
    with maintenance_lock(engine, "migrate") as lock:
        lock.check()
        postgres.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ 'migrate'"
        )
        time.sleep(0.2)
        with pytest.raises(UserError, match="lock was lost"):
            lock.check()


def test_locks_of_two_databases_do_not_meet(new_uri: Callable[[str], str]) -> None:
    first, second = connect(new_uri("postgresql")), connect(new_uri("postgresql"))
    with maintenance_lock(first, "migrate"), maintenance_lock(second, "migrate"):
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_every_verb_waits_as_long_as_it_is_told_and_then_says_who_holds_the_lock(
    kind: str, old_database: Callable[[str, str], str], tmp_path: Path
) -> None:
    uri = old_database("3.15.1", kind)
    store = f"--backend-store-uri={uri}"
    backup = back_up(uri, tmp_path / "sets")
    files = f"--artifacts-destination={tmp_path / 'artifacts'}"
    verbs = {
        "migrate": ["migrate", store, f"--to={tmp_path / 'sets'}", "--yes"],
        "backup": ["backup", store, f"--to={tmp_path / 'sets'}"],
        "restore": ["restore", store, f"--backup={backup.path}", "--yes"],
        "cleanup": ["cleanup", store, files, "--yes", "--claim"],
    }
    process = hold(uri)
    try:
        running = {
            verb: subprocess.Popen(
                [*(sys.executable, "-m", "invoke"), *words, "--wait=1"],
                cwd=ROOT,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
            for verb, words in verbs.items()
        }
        for verb, waiting in running.items():
            errors = waiting.communicate(timeout=300)[1]
            assert waiting.returncode == 1, (verb, errors)
            holder = rf"held by cleanup \(process {process.pid} on \S+\) since 20\S+ \S+ UTC"
            assert re.search(rf"waiting up to 1 s for the maintenance lock, {holder}", errors), errors
            assert re.search(rf"error: cannot start {verb}: the maintenance lock .* is {holder}", errors), (
                errors
            )
            assert "--wait=SECONDS" in errors
            assert "Traceback" not in errors
    finally:
        process.kill()
        process.wait()


def test_timeouts_of_a_role_end_no_backup_restore_or_migration(
    old_database: Callable[[str, str], str], postgres: Postgres, tmp_path: Path
) -> None:
    from backups.backup import back_up
    from backups.migrate import migrate
    from backups.restore import restore

    uri = old_database("3.10.1", "postgresql")
    name = uri.rpartition("/")[2]
    for setting in (
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '100ms'",
        "transaction_timeout = '200ms'",
    ):
        postgres.sql(f'ALTER DATABASE "{name}" SET {setting}')
    backup = back_up(uri, tmp_path / "sets")
    assert migrate(uri, tmp_path / "sets").after.state == "current"
    assert restore(uri, backup.path).schema.state == "behind"


def test_a_session_that_the_server_ends_is_a_message(
    old_database: Callable[[str, str], str],
    postgres: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from backups import backup

    uri = old_database("3.10.1", "postgresql")
    name = uri.rpartition("/")[2]

    def ended(_name: str, database: PostgreSQL, *_: object) -> dict[str, object]:
        with database.engine.connect() as connection:
            postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            connection.exec_driver_sql("SELECT 1")
        return {}

    monkeypatch.setattr(backup, "_database_part", ended)
    with pytest.raises(UserError, match="the database ended the backup: "):
        backup.back_up(uri, tmp_path / "sets")
    assert list((tmp_path / "sets").glob("2*")) == []
