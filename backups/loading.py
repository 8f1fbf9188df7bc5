"""A set's database into a database: MLflow's tables replaced in one transaction, across kinds and revisions."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from backups import sets
from console import UserError, note
from database import catalog, sqlitefile
from database.address import redact
from database.connection import connect
from database.dialect import dialect_of
from database.programs import find_programs
from database.replacing import views_of
from database.revision import revisions
from database.schema import KEPT, read_schema, run_migration
from database.tables import own
from files import require_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from backups.sets import BackupSet

    _Way = Callable[[Engine, BackupSet, Path, str | None, bool, Callable[[], None]], dict[str, int]]


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
    how = check_pair(engine.url.get_backend_name(), one)
    return how(engine, one, source, pg_command, to_head, ready)


def _load_dump(
    engine: Engine,
    one: BackupSet,
    source: Path,
    pg_command: str | None,
    to_head: bool,
    ready: Callable[[], None],
) -> dict[str, int]:
    """PostgreSQL into PostgreSQL: as it was, then migrated."""
    dialect_of(engine).replace(source, one.database, ready, pg_command)
    rows = _own_rows(one)
    if to_head and read_schema(engine).state == "behind":
        return _migrated(engine, one, rows)
    return rows


def _load_file(
    engine: Engine,
    one: BackupSet,
    source: Path,
    pg_command: str | None,
    to_head: bool,
    ready: Callable[[], None],
) -> dict[str, int]:
    """SQLite into SQLite: what is to be migrated is migrated first, as a copy."""
    if not to_head:
        dialect_of(engine).replace(source, one.database, ready, pg_command)
        return _own_rows(one)
    with _at_head(one, source) as current:
        dialect_of(engine).replace(current, one.database, ready, pg_command)
        with closing(sqlitefile.open_database(current)) as copied:
            return sqlitefile.count_rows(copied)


def _load_file_into_server(
    engine: Engine,
    one: BackupSet,
    source: Path,
    pg_command: str | None,
    to_head: bool,  # noqa: ARG001 - there is no other way
    ready: Callable[[], None],
) -> dict[str, int]:
    """SQLite into PostgreSQL, which gets the schema of the installed MLflow."""
    from database.tablecopy import copy_tables

    with engine.connect() as connection:
        beside = catalog.others(connection)
        beside.refuse_keys()
        version = catalog.server_version(connection)
    views = views_of(engine, find_programs(version, pg_command), beside) if beside.views else b""
    with _at_head(one, source) as current:
        copy_tables(current, engine, views, ready)
        with closing(sqlitefile.open_database(current)) as copied:
            return sqlitefile.count_rows(copied)


# From a kind of database that was backed up, to one that is restored.
_WAYS = {
    ("postgresql", "postgresql"): _load_dump,
    ("sqlite", "sqlite"): _load_file,
    ("sqlite", "postgresql"): _load_file_into_server,
}


def check_pair(kind: str, one: BackupSet) -> _Way:
    """Return how a set's database becomes one of another kind, or the same.

    Raises:
        UserError: there is no way.
    """
    way = _WAYS.get((one.database["kind"], kind))
    if way is None:
        raise UserError(
            f"the backup {one.where} is of a PostgreSQL database and cannot become a SQLite file",
            "give a PostgreSQL database: --backend-store-uri=postgresql+psycopg2://...",
        )
    return way


def _own_rows(one: BackupSet) -> dict[str, int]:
    rows: dict[str, int] = one.database["rows"]
    return {name: rows[name] for name in own(rows)}


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
