"""A set's database into a database: MLflow's tables replaced in one transaction, across kinds and revisions."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backups import sets
from console import UserError, note
from database import catalog, sqlitefile
from database.address import redact
from database.connection import connect
from database.dialect import dialect_of
from database.programs import find_programs
from database.replacing import views_of
from database.revision import BASIC_AUTH, MAIN, lines_of, revisions
from database.schema import KEPT, read_schema, run_migration
from database.tables import has_auth, has_tracking, own
from files import require_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Engine

    from backups.sets import BackupSet


@dataclass(frozen=True)
class Load:
    """One database of a verified set, on its way into a database.

    Attributes:
        engine: to the database.
        backup: the set.
        part: what its manifest says of the one; see `backups.sets.BackupSet.databases`.
        pg_command: see `database.programs.find_programs`.
        to_head: its schema is then that of the installed MLflow: PostgreSQL in further transactions.
        ready: called before the transaction is committed (SQLite: begun); what it raises undoes everything.
    """

    engine: Engine
    backup: BackupSet
    part: Mapping[str, Any]
    pg_command: str | None = None
    to_head: bool = False
    ready: Callable[[], None] = lambda: None

    def run(self) -> dict[str, int]:
        """Replace MLflow's tables by those of the set, in one transaction; what lies beside them stays.

        Returns:
            The number of rows that each table has got.

        Raises:
            UserError: it failed, and the database is as it was.
        """
        return check_pair(self.engine.url.get_backend_name(), self.backup, self.part)(self)

    @property
    def source(self) -> Path:
        """The set's file."""
        return sets.inside(self.backup, self.part["file"])

    def replace(self, file: Path) -> None:
        """Have the database hold what a file of its kind does."""
        dialect_of(self.engine).replace(file, self.part, self.ready, self.pg_command)

    def own_rows(self) -> dict[str, int]:
        """The number of rows of each table of MLflow's in the set."""
        rows: dict[str, int] = self.part["rows"]
        return {name: rows[name] for name in own(rows)}


def _load_dump(load: Load) -> dict[str, int]:
    """PostgreSQL into PostgreSQL: as it was, then migrated."""
    load.replace(load.source)
    if load.to_head and read_schema(load.engine, auth_alone=True).state == "behind":
        return _migrated(load)
    return load.own_rows()


def _load_file(load: Load) -> dict[str, int]:
    """SQLite into SQLite: what is to be migrated is migrated first, as a copy."""
    if not load.to_head:
        load.replace(load.source)
        return load.own_rows()
    with _at_head(load) as current:
        load.replace(current)
        with closing(sqlitefile.open_database(current)) as copied:
            return sqlitefile.count_rows(copied)


def _load_file_into_server(load: Load) -> dict[str, int]:
    """SQLite into PostgreSQL, which gets the schema of the installed MLflow."""
    from database.tablecopy import copy_tables

    with load.engine.connect() as connection:
        beside = catalog.others(connection)
        beside.refuse_keys()
        version = catalog.server_version(connection)
    views = b""
    if beside.views:
        views = views_of(load.engine, find_programs(version, load.pg_command), beside)
    with _at_head(load) as current:
        return copy_tables(current, load.engine, views, load.ready)


# From a kind of database that was backed up, to one that is restored.
_WAYS = {
    ("postgresql", "postgresql"): _load_dump,
    ("sqlite", "sqlite"): _load_file,
    ("sqlite", "postgresql"): _load_file_into_server,
}


def check_pair(kind: str, backup: BackupSet, part: Mapping[str, Any]) -> Callable[[Load], dict[str, int]]:
    """Return how a database of a set becomes one of another kind, or the same.

    Raises:
        UserError: there is no way.
    """
    way = _WAYS.get((part["kind"], kind))
    if way is None:
        raise UserError(
            f"the backup {backup.where} is of a PostgreSQL database and cannot become a SQLite file",
            "give a PostgreSQL database: --backend-store-uri=postgresql+psycopg2://...",
        )
    return way


def _migrated(load: Load) -> dict[str, int]:
    """Migrate what was loaded; returns the rows that each table must have that users logged to."""
    note("migrating the schema")
    try:
        run_migration(load.engine, lambda _done, _total, _step: None)
    except Exception as error:  # a migration may raise anything
        reason = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"the backup is restored, but its schema cannot be migrated: {redact(reason[0])}",
            f"it is of MLflow {load.backup.manifest['mlflow_version']}, which goes on with it as it is",
        ) from None
    rows = load.own_rows()
    return {table: rows[table] for table in KEPT if table in rows}


def check_known(backup: BackupSet, part: Mapping[str, Any]) -> None:
    """Hold that the installed MLflow knows the revision of a database of a set.

    Raises:
        UserError: it does not.
    """
    known = {step.revision for line in (MAIN, BASIC_AUTH) for step in revisions(line)}
    first = has_auth(part["rows"]) and not has_tracking(part["rows"]) and part["revision"] is None
    if part["revision"] not in known and not first:
        raise UserError(
            f"the backup is of MLflow {backup.manifest['mlflow_version']}; this one does not know its schema",
            f"use MLflow {backup.manifest['mlflow_version']} or later",
        )


@contextmanager
def _at_head(load: Load) -> Iterator[Path]:
    """Give a SQLite copy of a set's database whose schema is at the head of the installed MLflow."""
    check_known(load.backup, load.part)
    source = load.source
    with closing(sqlitefile.open_database(source)) as database:
        current = all(
            sqlitefile.revision(database, line.table) == revisions(line)[-1].revision
            for line in lines_of(load.part["rows"])
        )
    if current:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="mlflow-stacks-") as folder:
        require_room(Path(folder), 3 * load.part["bytes"], "a migrated copy of the backup")
        copied = Path(folder) / source.name
        shutil.copyfile(source, copied)
        engine = connect(f"sqlite:///{copied}", foreign_keys=False)
        try:
            run_migration(engine, lambda _done, _total, _step: None)
        finally:
            engine.dispose()
        yield copied
