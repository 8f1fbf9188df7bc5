"""Copy a SQLite database into PostgreSQL, table by table: how a user outgrows the laptop.

MLflow's own migration builds the tables in a schema beside the old one; COPY fills them; their rows are
counted; one transaction puts them in place of the old ones. A crash before that leaves the old data, and a
schema that the next try removes.
"""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
from sqlalchemy import MetaData, inspect
from sqlalchemy.exc import DBAPIError

from console import UserError, note, progress
from database import catalog, sqlitefile
from database.connection import connect
from database.replacing import clear
from database.revision import lines_of
from database.schema import run_migration
from database.tables import REVISION, has_auth, has_tracking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

STAGE = "mlflow_stacks_restore"
_BATCH = 5000  # rows that are in memory at once

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def copy_tables(source: Path, engine: Engine, views: bytes, ready: Callable[[], None]) -> dict[str, int]:
    """Replace MLflow's tables in a PostgreSQL schema by those of a SQLite database.

    Args:
        source: a SQLite file whose schema is at the head of the installed MLflow.
        engine: to the PostgreSQL database.
        views: from `database.replacing.views_of`.
        ready: called before the old tables go; what it raises leaves them.

    Returns:
        The number of rows that each table has got.

    Raises:
        UserError: a value does not fit into PostgreSQL, or a session holds a table; nothing was changed.
    """
    with engine.connect() as connection:
        target = catalog.current_schema(connection)
    stage = connect(engine.url.render_as_string(hide_password=False), lock_timeout=15_000, schema=STAGE)
    try:
        _drop_stage(stage)
        with stage.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {STAGE}")
        with closing(sqlitefile.open_database(source)) as database:
            rows = sqlitefile.count_rows(database)
            if not has_tracking(rows):  # what the revision of basic auth was kept in before MLflow 3.6
                rows.pop(REVISION, None)
            run_migration(stage, lambda _done, _total, _step: None, lines_of(rows))
            with stage.begin() as connection:
                _fill(database, connection, rows)
            ready()
            with stage.begin() as connection:
                _swap(connection, rows, target, views)
    except (
        DBAPIError,
        psycopg2.Error,
        sqlite3.Error,
    ) as error:  # the last two: COPY, and what it is fed from
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()
        raise UserError(
            f"cannot copy the backup into PostgreSQL: {reason[0]}", *reason[1:3], "the database is as it was"
        ) from None
    finally:
        _drop_stage(stage)
        stage.dispose()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    return rows


def _drop_stage(stage: Engine) -> None:
    with stage.begin() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {STAGE} CASCADE")


def _fill(database: sqlite3.Connection, connection: Connection, rows: dict[str, int]) -> None:
    """Copy every table that has rows, in the order of their foreign keys."""
    metadata = MetaData()
    metadata.reflect(connection)
    unknown = sorted(table for table in rows if rows[table] and table not in metadata.tables)
    if unknown:
        raise UserError(f"the backup holds tables that MLflow does not have: {', '.join(unknown)}")
    if beside := [name for _, name in sqlitefile.others(database).relations]:
        note(f"left in the backup, for they are not MLflow's: {', '.join(beside)}")
    # what the migrations themselves have put there
    names = ", ".join(f'"{table}"' for table in metadata.tables)
    connection.exec_driver_sql(f"TRUNCATE {names}")
    cursor: Any = connection.connection.cursor()
    with progress("copying rows", sum(rows.values()), "rows") as step:
        for table in metadata.sorted_tables:
            if not rows.get(table.name):
                continue
            there = {row[1] for row in database.execute(f'PRAGMA table_info("{table.name}")')}
            columns = [c.name for c in table.columns if c.computed is None and c.name in there]
            quoted = ", ".join(f'"{name}"' for name in columns)
            selected = database.execute(f'SELECT {quoted} FROM "{table.name}"')  # noqa: S608
            while batch := selected.fetchmany(_BATCH):
                text = io.StringIO("".join(_lines(batch)))
                cursor.copy_expert(f'COPY "{table.name}" ({quoted}) FROM STDIN', text)
                step.add(len(batch), table.name)
    for table in metadata.sorted_tables:
        for column in inspect(connection).get_columns(table.name):
            if "nextval" in str(column.get("default")) or column.get("identity"):
                _fix_sequence(connection, table.name, column["name"])


def _lines(rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    """Yield rows in COPY's text format (PostgreSQL manual, COPY, "Text Format")."""
    for row in rows:
        yield "\t".join(_text(value) for value in row) + "\n"


def _text(value: object) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, bytes):
        return "\\\\x" + value.hex()
    if isinstance(value, str):
        return value.translate(_ESCAPES)
    return repr(value)


def _fix_sequence(connection: Connection, table: str, column: str) -> None:
    """Let a sequence go on after the highest number that was copied."""
    connection.exec_driver_sql(
        "SELECT setval(pg_get_serial_sequence(%s, %s),"  # noqa: S608
        f' (SELECT coalesce(max("{column}"), 0) + 1 FROM "{table}"), false)',
        (f'"{table}"', column),
    )


def _swap(connection: Connection, rows: dict[str, int], target: str, views: bytes) -> None:
    """Count the staged rows, drop the old tables, move the new ones; all in the caller's transaction."""
    staged = catalog.count_rows(connection)
    for table, number in rows.items():
        if staged.get(table, 0) != number:
            raise UserError(
                f"table {table}: {staged.get(table, 0)} of {number} rows were copied", "nothing was changed"
            )
    connection.exec_driver_sql(f'SET LOCAL search_path = "{target}"')
    beside = catalog.others(connection)
    beside.refuse_keys()
    connection.exec_driver_sql(clear(connection, beside, auth=has_auth(rows)).replace("%", "%%"))
    for table in catalog.table_names(connection, STAGE):
        connection.exec_driver_sql(f'ALTER TABLE {STAGE}."{table}" SET SCHEMA "{target}"')
    routines = "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = %s::regnamespace"
    for routine in connection.exec_driver_sql(routines, (STAGE,)).scalars().all():
        connection.exec_driver_sql(f'ALTER ROUTINE {routine} SET SCHEMA "{target}"')
    # without what psql alone understands
    lines = [line for line in views.decode().splitlines(keepends=True) if not line.startswith("\\")]
    if lines:
        connection.exec_driver_sql("".join(lines).replace("%", "%%"))
