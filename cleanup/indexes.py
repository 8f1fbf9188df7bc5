"""Indexes for the time of a cleanup, where the schema lacks one that its own foreign keys need.

Deleting a row makes the database look for rows that refer to it. Without an index on the referring column
that is one scan of the whole table for each deleted row: in MLflow's schema on logged_model_metrics.run_id,
and minutes for a few hundred runs (PostgreSQL manual, section 5.5.5).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import PrimaryKeyConstraint, UniqueConstraint, text
from sqlalchemy.exc import DBAPIError

from console import note

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Engine

    from cleanup.schema import Edge, Schema

PREFIX = "mlflow_stacks_cleanup_"
SMALL = 10_000  # rows that are scanned in about a millisecond
WORTH_IT = 20_000_000  # row visits that building an index costs less than


def _indexed(edge: Edge) -> bool:
    table = edge.child
    unique = [item for item in table.constraints if isinstance(item, PrimaryKeyConstraint | UniqueConstraint)]
    # what a killed cleanup left was there when the schema was read, and is not any more
    lasting = [item for item in table.indexes if not str(item.name).startswith(PREFIX)]
    return any(
        column.name in edge.columns
        for columns in (*(item.columns for item in unique), *(item.columns for item in lasting))
        for column in list(columns)[:1]
    )


def _rows(connection: Connection, schema: Schema, tables: set[str]) -> dict[str, int]:
    """Return about how many rows each table has."""
    if schema.dialect == "sqlite":
        return {
            table: int(connection.execute(text(f'SELECT max(rowid) FROM "{table}"')).scalar() or 0)  # noqa: S608
            for table in tables
        }
    # reltuples is -1 before the first ANALYZE; the file's size is always known
    estimate = text(
        "SELECT name, greatest(reltuples, pg_relation_size(oid) / 200)"
        " FROM unnest(CAST(:names AS text[])) AS name JOIN pg_class ON oid = to_regclass(quote_ident(name))"
    )
    return {name: int(rows) for name, rows in connection.execute(estimate, {"names": sorted(tables)})}


def missing(connection: Connection, schema: Schema, deleted: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return (table, column) of each foreign key that needs an index while rows of its target are deleted.

    Args:
        connection: to the database.
        schema: its schema.
        deleted: about how many rows are going to be deleted, by table.
    """
    needed = [
        (edge, deleted.get(edge.parent.name, 0))
        for edge in schema.edges
        if not edge.reference and not _indexed(edge)
    ]
    needed = [(edge, parents) for edge, parents in needed if parents > 1]
    if not needed:
        return []
    rows = _rows(connection, schema, {edge.child.name for edge, _ in needed})
    return sorted(
        {
            (edge.child.name, edge.columns[0])
            for edge, parents in needed
            if (count := rows.get(edge.child.name, 0)) > SMALL and count * parents > WORTH_IT
        }
    )


def drop_leftovers(engine: Engine) -> None:
    """Drop what a killed cleanup left, valid or not."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            query = "SELECT name FROM sqlite_master WHERE type = 'index' AND substr(name, 1, :n) = :prefix"
        else:
            query = (
                "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE c.relkind = 'i' AND left(c.relname, :n) = :prefix"
            )
        names = list(connection.execute(text(query), {"n": len(PREFIX), "prefix": PREFIX}).scalars())
    for name in names:
        _run(engine, f"DROP INDEX {_concurrently(engine)} IF EXISTS {name}")


def _concurrently(engine: Engine) -> str:
    return "" if engine.dialect.name == "sqlite" else "CONCURRENTLY"


def _run(engine: Engine, statement: str) -> bool:
    """Run outside a transaction, without waiting long for anybody; say when it does not work."""
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if engine.dialect.name != "sqlite":
                connection.exec_driver_sql("SET lock_timeout = '30s'")
            try:
                connection.exec_driver_sql(statement)
            finally:
                if engine.dialect.name != "sqlite":
                    connection.exec_driver_sql("RESET lock_timeout")
    except DBAPIError as error:
        note(f"going on without: {statement} ({str(error.orig).strip().splitlines()[0]})")
        return False
    return True


@contextmanager
def temporary_indexes(engine: Engine, columns: list[tuple[str, str]]) -> Iterator[None]:
    """Have an index on each (table, column) inside the block; writers are never blocked on PostgreSQL."""
    try:
        for table, column in columns:
            note(f"building an index on {table}.{column} for the time of the cleanup")
            _run(
                engine,
                f'CREATE INDEX {_concurrently(engine)} {PREFIX}{table}_{column} ON "{table}" ("{column}")',
            )
        yield
    finally:
        if columns:
            drop_leftovers(engine)
