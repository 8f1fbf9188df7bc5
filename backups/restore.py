"""Put a backup set back: everything is verified before anything is touched, and counted again afterwards."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backups import sets
from console import UserError, note, size
from database import postgresql, sqlite
from database.connection import connect, driver_errors, redact, sqlite_path
from database.inspection import count_rows
from database.locations import move
from database.lock import maintenance_lock
from database.revision import revisions
from database.schema import KEPT, read_schema, run_migration
from files import require_room, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from backups.sets import BackupSet
    from database.revision import Schema


@dataclass(frozen=True)
class Plan:
    """What a restore would replace."""

    backup: BackupSet
    schema: Schema | None
    rows: dict[str, int]
    users: list[str]

    def lines(self, uri: str, destination: str | None) -> list[str]:
        """Return the plan as a person reads it."""
        now = sum(self.rows.values())
        then = sum(self.backup.database["rows"].values())
        state = self.schema.state if self.schema else "no file yet"
        text = [f"restore {self.backup.where} of {self.backup.manifest['created']}"]
        text.append(f"  database   {redact(uri)}: {now} rows ({state}) become {then} rows")
        artifacts = self.backup.artifacts
        if artifacts and destination:
            amount = f"{artifacts['objects']} objects, {size(artifacts['bytes'])}"
            text.append(f"  artifacts  {redact(destination)}: {amount}")
        elif artifacts:
            text.append("  artifacts  left alone: no --artifacts-destination")
        return [*text, *(f"  in use by  {one}" for one in self.users)]


def plan(uri: str, backup: Path | BackupSet) -> Plan:
    """Look at a set and at the database it would replace; changes nothing.

    Raises:
        UserError: no usable set, a database that cannot be reached, or a set that this MLflow cannot use.
    """
    one = _opened(backup)
    _check_pair(uri, one)
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return Plan(one, None, {}, [])
    engine = connect(uri)
    try:
        schema = read_schema(engine)
        if path is not None:
            with closing(sqlite.open_database(path)) as database:
                rows = sqlite.count_rows(database)
            using = sqlite.users(path)
            return Plan(one, schema, rows, using.split(", ") if using else [])
        with engine.connect() as connection:
            return Plan(one, schema, postgresql.count_rows(connection), postgresql.other_sessions(connection))
    finally:
        engine.dispose()


def _opened(backup: Path | BackupSet) -> BackupSet:
    return sets.open_set(backup.absolute()) if isinstance(backup, Path) else backup


def _check_pair(uri: str, one: BackupSet) -> None:
    if one.database["kind"] == "postgresql" and sqlite_path(uri) is not None:
        raise UserError(
            f"the backup {one.where} is of a PostgreSQL database and cannot become a SQLite file",
            "give a PostgreSQL database: --backend-store-uri=postgresql+psycopg2://...",
        )


@dataclass(frozen=True)
class Result:
    """What a restore did."""

    backup: BackupSet
    schema: Schema
    rows: int
    artifacts: dict[str, Any] | None
    keys: list[str]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the shape that ``restore --json`` shows."""
        return {
            "backup": self.backup.where,
            "state": self.schema.state,
            "revision": self.schema.revision,
            "rows": self.rows,
            "artifacts": self.artifacts,
            "keys": self.keys,
            "seconds": self.seconds,
        }


def restore(
    uri: str,
    backup: Path | BackupSet,
    *,
    destination: str | None = None,
    artifact_root: str | None = None,
    keys_to: Path | None = None,
    to_head: bool = False,
    wait_seconds: float = 0,
    pg_command: str | None = None,
) -> Result:
    """Verify a set, then make database, artifacts and keys what it holds.

    Objects that are missing are added where nothing refers to them yet, while the database is loaded; when all of
    them are there, one transaction replaces the database; then come objects that differ. Objects that the set does
    not name are left: ``invoke cleanup`` finds those that nothing refers to.

    Args:
        uri: the backend store; a set of a SQLite database also fits an MLflow database in PostgreSQL.
        backup: the set, or its folder.
        destination: the artifact destination; None leaves artifacts alone.
        artifact_root: how rows shall name a destination that is another one than the set's: ``mlflow-artifacts:/``
            where a server serves it; None for its own address.
        keys_to: where to put the set's key files; None leaves them in the set.
        to_head: migrate a schema that is behind; the set is its backup.
        wait_seconds: how long to wait for another process that holds the maintenance lock.
        pg_command: see `database.postgresql.find_programs`.

    Raises:
        UserError: the set is damaged or does not fit, or loading failed; then the database is as it was.
    """
    begun = time.monotonic()
    one = _opened(backup)
    _check_pair(uri, one)
    if to_head:
        _check_known(one)
    engine = connect(uri, create=True)
    try:
        with driver_errors("restore"), maintenance_lock(engine, "restore", wait_seconds) as lock:
            sets.verify(one)
            artifacts = None
            if destination is not None and one.artifacts:
                from backups.destination import tell_outside
                from backups.object_restore import Restore

                objects = Restore(destination, one)
                with objects.adding() as finish:

                    def ready() -> None:
                        finish()
                        lock.check()

                    expected = load_set(engine, one, pg_command=pg_command, to_head=to_head, ready=ready)
                if objects.source != one.artifacts["source"]:
                    old = one.artifacts.get("roots", [one.artifacts["source"]])
                    objects.moved = move(engine, old, artifact_root or objects.source)
                artifacts = objects.replace_different()
                tell_outside(engine, destination, "are named by the database and were not restored")
            else:
                expected = load_set(engine, one, pg_command=pg_command, to_head=to_head, ready=lock.check)
            keys = _restore_keys(one, keys_to) if keys_to else []
            rows = sum(_recount(engine, expected).values())
            return Result(one, read_schema(engine), rows, artifacts, keys, round(time.monotonic() - begun, 1))
    finally:
        engine.dispose()


def load_set(
    engine: Engine,
    one: BackupSet,
    *,
    pg_command: str | None = None,
    to_head: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Replace the database's content by that of a verified set, in one transaction.

    Args:
        engine: to the database.
        one: the set.
        pg_command: see `database.postgresql.find_programs`.
        to_head: its schema is then that of the installed MLflow: PostgreSQL in a second transaction.
        ready: called before the transaction is committed (SQLite: begun); what it raises undoes everything.

    Returns:
        The number of rows that each table has got.

    Raises:
        UserError: it failed, and the database is as it was.
    """
    source = sets.inside(one, one.database["file"])
    rows: dict[str, int] = one.database["rows"]
    path = sqlite_path(engine.url)
    if path is not None:
        engine.dispose()
        if not to_head:
            ready()
            _load_sqlite(path, one, source)
            return rows
        with _at_head(one, source) as current:
            ready()
            _load_sqlite(path, one, current)
            with closing(sqlite.open_database(current)) as copied:
                return sqlite.count_rows(copied)
    if one.database["kind"] == "sqlite":
        return _load_sqlite_into_postgresql(engine, one, source, ready)
    with engine.connect() as connection:
        version = postgresql.server_version(connection)
        here = postgresql.identity(connection)
        schema = postgresql.current_schema(connection)
    if schema != one.database["schema"]:
        raise UserError(
            f"the backup is of the schema '{one.database['schema']}', this database's is '{schema}'",
            f"create it and put it first: ALTER ROLE ... SET search_path = {one.database['schema']}",
        )
    stored = one.database.get("identity")
    programs = postgresql.find_programs(version, pg_command)
    postgresql.load(engine, programs, source, rows, owners=stored == here, ready=ready)
    if to_head and read_schema(engine).state == "behind":
        return _migrated(engine, one, rows)
    return rows


def _migrated(engine: Engine, one: BackupSet, rows: dict[str, int]) -> dict[str, int]:
    """Migrate what was loaded; returns the rows that each table must have that users logged to."""
    note("migrating the schema")
    try:
        run_migration(engine, lambda _done, _total, _step: None)
    except Exception as error:  # a migration may raise anything
        reason = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"the backup is restored, but its schema cannot be migrated: {redact(reason[0])}",
            f"it is of MLflow {one.manifest['mlflow_version']}, which goes on with it as it is",
        ) from None
    return {table: rows[table] for table in KEPT if table in rows}


def _load_sqlite(path: Path, one: BackupSet, source: Path) -> None:
    require_room(path.parent, one.database["bytes"], "the restored database")
    try:
        with sqlite.exclusive(path) as database:
            sqlite.replace_content(database, source, "restoring the database", one.database["journal_mode"])
    except sqlite3.OperationalError as error:
        raise UserError(f"cannot restore to {path}: {error}", "the database is as it was") from None


def _check_known(one: BackupSet) -> list[str]:
    """Return the revisions of the installed MLflow, the newest last; the set's is among them."""
    known = [step.revision for step in revisions()]
    if one.database["revision"] not in known:
        raise UserError(
            f"the backup is of MLflow {one.manifest['mlflow_version']}; this one does not know its schema",
            f"use MLflow {one.manifest['mlflow_version']} or later",
        )
    return known


@contextmanager
def _at_head(one: BackupSet, source: Path) -> Iterator[Path]:
    """Give a SQLite copy of a set's database whose schema is at the head of the installed MLflow."""
    if one.database["revision"] == _check_known(one)[-1]:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="mlflow-stacks-") as folder:
        require_room(Path(folder), 3 * one.database["bytes"], "a migrated copy of the backup")
        copied = Path(folder) / source.name
        shutil.copyfile(source, copied)
        engine = connect(f"sqlite:///{copied}", foreign_keys=False)
        try:
            run_migration(engine, lambda _done, _total, _step: None)
        finally:
            engine.dispose()
        yield copied


def _load_sqlite_into_postgresql(
    engine: Engine, one: BackupSet, source: Path, ready: Callable[[], None]
) -> dict[str, int]:
    from database.tablecopy import copy_tables

    with _at_head(one, source) as current:
        copy_tables(current, engine, ready)
        with closing(sqlite.open_database(current)) as copied:
            return sqlite.count_rows(copied)


def _recount(engine: Engine, expected: dict[str, int]) -> dict[str, int]:
    """Count the rows again.

    Raises:
        UserError: a table lacks rows. (More is fine: a server may be writing already.)
    """
    rows = count_rows(engine)
    for table, number in expected.items():
        if rows.get(table, 0) < number:
            raise UserError(f"after the restore, table {table} has {rows.get(table, 0)} of {number} rows")
    return rows


def _restore_keys(one: BackupSet, to: Path) -> list[str]:
    restored = []
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    for key in one.manifest["keys"]:
        source, target = sets.inside(one, f"keys/{key['name']}"), to / key["name"]
        if target.exists() and sha256(target) == key["sha256"]:
            continue
        if target.exists():
            target.rename(target.with_name(f"{target.name}.before-restore"))
        shutil.copyfile(source, target)
        target.chmod(0o600)
        restored.append(str(target))
    return restored
