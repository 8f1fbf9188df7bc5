"""A set's database into a database: MLflow's tables replaced in one transaction, across kinds and revisions."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backups import sets
from console import UserError, note
from database import postgresql, sqlite
from database.connection import connect, redact, sqlite_path
from database.programs import find_programs
from database.replacing import load, views_of
from database.revision import revisions
from database.schema import KEPT, read_schema, run_migration
from database.tables import AUTH, AUTH_REVISION, own
from files import require_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from backups.sets import BackupSet


def load_set(
    engine: Engine,
    one: BackupSet,
    *,
    pg_command: str | None = None,
    to_head: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Replace MLflow's tables by those of a verified set, in one transaction; what lies beside them stays.

    Args:
        engine: to the database.
        one: the set.
        pg_command: see `database.programs.find_programs`.
        to_head: its schema is then that of the installed MLflow: PostgreSQL in a second transaction.
        ready: called before the transaction is committed (SQLite: begun); what it raises undoes everything.

    Returns:
        The number of rows that each table has got.

    Raises:
        UserError: it failed, and the database is as it was.
    """
    source = sets.inside(one, one.database["file"])
    rows: dict[str, int] = {name: one.database["rows"][name] for name in own(one.database["rows"])}
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
        return _load_sqlite_into_postgresql(engine, one, source, pg_command, ready)
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
    programs = find_programs(version, pg_command)
    load(engine, programs, source, rows, owners=stored == here, ready=ready)
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
        with sqlite.exclusive(path) as database, _with_others(path, one, database, source) as whole:
            sqlite.replace_content(database, whole, "restoring the database", one.database["journal_mode"])
    except (sqlite3.OperationalError, OSError) as error:
        raise UserError(f"cannot restore to {path}: {error}", "the database is as it was") from None


@contextmanager
def _with_others(path: Path, one: BackupSet, database: sqlite3.Connection, source: Path) -> Iterator[Path]:
    """Give a set's database with what the present one holds beside MLflow's tables."""
    beside = sqlite.others(database)
    beside.refuse_keys()
    if AUTH_REVISION not in one.database["rows"]:  # who may log in is not for a set without it to say
        users = AUTH | {AUTH_REVISION}
        kept = tuple(("TABLE", name) for name in sqlite.own_tables(database) if name in users)
        beside = replace(beside, relations=beside.relations + kept)
    if not beside.relations:
        yield source
        return
    work = path.with_name(f"{path.name}.restoring")
    try:
        shutil.copyfile(source, work)
        sqlite.keep_others(database, beside, work)
        yield work
    finally:
        for suffix in ("", "-journal"):
            work.with_name(work.name + suffix).unlink(missing_ok=True)


def check_known(one: BackupSet) -> list[str]:
    """Return the revisions of the installed MLflow, the newest last.

    Raises:
        UserError: the set's is not among them.
    """
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
    if one.database["revision"] == check_known(one)[-1]:
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
    engine: Engine, one: BackupSet, source: Path, pg_command: str | None, ready: Callable[[], None]
) -> dict[str, int]:
    from database.tablecopy import copy_tables

    with engine.connect() as connection:
        beside = postgresql.others(connection)
        beside.refuse_keys()
        version = postgresql.server_version(connection)
    views = views_of(engine, find_programs(version, pg_command), beside) if beside.views else b""
    with _at_head(one, source) as current:
        copy_tables(current, engine, views, ready)
        with closing(sqlite.open_database(current)) as copied:
            return sqlite.count_rows(copied)
