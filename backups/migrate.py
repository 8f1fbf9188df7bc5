"""Bring a schema to the head of the installed MLflow with a backup first, or leave the database as it was."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backups import sets
from backups.backup import write_set
from backups.loading import Load
from console import Progress, UserError, note
from database import catalog, sqlite, sqlitefile
from database.address import redact
from database.connection import connect, driver_errors
from database.dialect import dialect_of, maintenance_lock
from database.revision import Schema, Step, refusal
from database.schema import KEPT, read_schema, run_migration
from files import require_room

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from backups.sets import BackupSet
    from database.lock import Lock
    from database.schema import OnStep

LOCK_TIMEOUT = (
    30_000  # milliseconds that one statement of a migration waits for another session's transaction
)


@dataclass(frozen=True)
class Plan:
    """What `migrate` would do: the schema's state and who else uses the database at this moment."""

    schema: Schema
    users: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return the shape that ``migrate --check --json`` shows."""
        return {**self.schema.as_json(), "users": self.users}

    def refuse(self, uri: str) -> None:
        """Refuse a schema that must not be touched.

        Raises:
            UserError: it is ahead or unknown.
        """
        if self.schema.state in {"ahead", "unknown"}:
            raise refusal(self.schema, redact(uri))


def plan(uri: str) -> Plan:
    """Look at a database; changes nothing.

    Raises:
        UserError: it cannot be reached.
    """
    engine = connect(uri, foreign_keys=False)
    try:
        return Plan(read_schema(engine, auth_alone=True), dialect_of(engine).users())
    finally:
        engine.dispose()


@dataclass(frozen=True)
class Result:
    """What `migrate` did."""

    before: Schema
    after: Schema
    backup: BackupSet | None
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the shape that ``migrate --json`` shows."""
        return {
            **self.after.as_json(),
            "before": {"state": self.before.state, "revision": self.before.revision},
            "migrated": len(self.before.pending),
            "backup": str(self.backup.path) if self.backup else None,
            "seconds": self.seconds,
        }


def migrate(
    uri: str,
    to: Path,
    *,
    wait_seconds: float = 0,
    pg_command: str | None = None,
    on_step: OnStep | None = None,
    backup: Path | None = None,
) -> Result:
    """Migrate a database whose schema is behind (or empty) to the head.

    PostgreSQL: one transaction. SQLite: a copy is migrated, checked, and then put in place in one
    transaction, with every other process locked out from before the copy is taken.

    Args:
        uri: the backend store.
        to: the folder of backup sets; one is written there first.
        wait_seconds: how long to wait for another process that holds the maintenance lock.
        pg_command: see `database.programs.find_programs`.
        on_step: called before each revision, as in `run_migration`.
        backup: a set of this database as it is now, which nobody writes to; no other is written then.

    Raises:
        UserError: the schema is ahead or unknown, or the migration failed; then the database is as it was.
    """
    begun = time.monotonic()
    taken = sets.open_set(backup) if backup else None
    engine = connect(uri, foreign_keys=False, lock_timeout=LOCK_TIMEOUT)
    try:
        with driver_errors("migration"), maintenance_lock(engine, "migrate", wait_seconds) as lock:
            before = read_schema(engine, auth_alone=True)
            if before.state in {"ahead", "unknown"}:
                raise refusal(before, redact(uri))
            saved = None
            if before.state == "empty":
                run_migration(engine, _steps(lock, _Counter(), on_step))
            elif before.state == "behind":
                how = _WAYS[dialect_of(engine).kind]
                saved = how(engine, to, lock, pg_command, on_step, taken)
            return Result(
                before, read_schema(engine, auth_alone=True), saved, round(time.monotonic() - begun, 1)
            )
    finally:
        engine.dispose()


class _Counter:
    """Remembers which revision is running, for the message of a failure."""

    def __init__(self) -> None:
        self.now = "before its first revision"

    def __call__(self, done: int, total: int, step: Step) -> None:
        self.now = f"at revision {step.revision} ({step.title}), {done + 1} of {total}"


def _steps(lock: Lock, counter: _Counter, then: OnStep | None) -> OnStep:
    bar = Progress("migrating", 0, "revisions")

    def on_step(done: int, total: int, step: Step) -> None:
        lock.check()
        counter(done, total, step)
        bar.total = total
        bar.at(done, step.title)
        if done + 1 == total:
            bar.clear()
        if then:
            then(done, total, step)

    return on_step


def _failed(error: Exception, counter: _Counter, backup: BackupSet, outcome: str) -> UserError:
    reason = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    return UserError(
        f"the migration failed {counter.now}: {redact(reason[0])}",
        outcome,
        f"the backup taken before it: {backup.path}",
    )


def _verify(before: dict[str, int], after: dict[str, int], schema: Schema) -> None:
    if schema.state != "current":
        raise UserError(f"the schema is {schema.state} afterwards: {schema.detail}")
    for table in KEPT:
        if after.get(table, 0) < before.get(table, 0):
            raise UserError(
                f"table {table} had {before[table]} rows and has {after.get(table, 0)} afterwards"
            )


def _checked(taken: BackupSet, rows: dict[str, int]) -> BackupSet:
    """A set that stands in for a new one: it has what the database has."""
    if taken.database["rows"] != rows:
        raise UserError(f"the backup {taken.path} is not of the database as it is now", "take a new one")
    return taken


def _migrate_postgresql(
    engine: Engine,
    to: Path,
    lock: Lock,
    pg_command: str | None,
    on_step: OnStep | None,
    taken: BackupSet | None,
) -> BackupSet:
    if taken:
        with engine.connect() as connection:
            backup = _checked(taken, catalog.count_rows(connection))
    else:
        backup = write_set(engine, to, "before-migrate", pg_command=pg_command)
        note(f"backed up to {backup.path}")
    revision = backup.database["revision"]
    counter = _Counter()
    try:
        run_migration(engine, _steps(lock, counter, on_step))
        with engine.connect() as connection:
            _verify(
                backup.database["rows"], catalog.count_rows(connection), read_schema(engine, auth_alone=True)
            )
    except Exception as error:  # a migration may raise anything
        with engine.connect() as connection:
            rows = catalog.count_rows(connection)
            sessions = catalog.other_sessions(connection) if "lock timeout" in str(error) else []
        if sessions:
            note("connected at this moment: " + "; ".join(sessions))
        if (
            read_schema(engine, auth_alone=True).revision == revision
            and rows.keys() == backup.database["rows"].keys()
        ):
            raise _failed(
                error, counter, backup, "the database is as it was: PostgreSQL took everything back"
            ) from error
        Load(engine, backup, backup.database, pg_command).run()
        raise _failed(error, counter, backup, "the database is as it was: the backup was restored") from error
    return backup


def _migrate_sqlite(
    engine: Engine,
    to: Path,
    lock: Lock,
    pg_command: str | None,  # noqa: ARG001 - PostgreSQL's
    on_step: OnStep | None,
    taken: BackupSet | None,
) -> BackupSet:
    engine.dispose()  # our own connections would be in the way, too
    path = sqlite.SQLite(engine).path
    work = path.with_name(f"{path.name}.migrating")
    counter = _Counter()
    with sqlitefile.exclusive(path) as database:
        require_room(path.parent, 2 * path.stat().st_size, "a migrated copy of the database")
        if taken:
            backup = _checked(taken, sqlitefile.count_rows(database))
        else:
            held = sqlite.SQLite(engine, database)
            backup = write_set(engine, to, "before-migrate", database=held)
            note(f"backed up to {backup.path}")
        try:
            _remove(work)  # of a migration that was killed
            sqlitefile.copy(database, work, "copying the database")
            copied = connect(f"sqlite:///{work}", foreign_keys=False)
            try:
                run_migration(copied, _steps(lock, counter, on_step))
                schema = read_schema(copied, auth_alone=True)
            finally:
                copied.dispose()
            with closing(sqlitefile.open_database(work)) as connection:
                sqlitefile.check(connection, work)
                _verify(backup.database["rows"], sqlitefile.count_rows(connection), schema)
            lock.check()
            mode = backup.database["journal_mode"]
            sqlitefile.replace_content(database, work, "putting the migrated database in place", mode)
        except Exception as error:  # a migration may raise anything
            outcome = "the database is as it was: only a copy had been changed"
            raise _failed(error, counter, backup, outcome) from error
        finally:
            _remove(work)
    return backup


# PostgreSQL runs all revisions in one transaction; SQLite commits each statement, so a copy is migrated.
_WAYS = {"postgresql": _migrate_postgresql, "sqlite": _migrate_sqlite}


def _remove(work: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        work.with_name(work.name + suffix).unlink(missing_ok=True)
