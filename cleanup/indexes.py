"""Indexes for the time of a cleanup, where the schema lacks one that its own foreign keys need.

Deleting a row makes the database look for rows that refer to it. Without an index on the referring column
that is one scan of the whole table for each deleted row: in MLflow's schema on logged_model_metrics.run_id,
and minutes for a few hundred runs (PostgreSQL manual, section 5.5.5).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import PrimaryKeyConstraint, UniqueConstraint
from sqlalchemy.exc import DBAPIError

from console import note
from database.dialect import dialect_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Engine

    from cleanup.schema import Edge, Schema
    from database.language import Language

PREFIX = "mlflow_stacks_cleanup_"
PATIENCE = 30  # seconds to wait for somebody who uses a table
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
    rows = schema.language.about_rows(connection, {edge.child.name for edge, _ in needed})
    return sorted(
        {
            (edge.child.name, edge.columns[0])
            for edge, parents in needed
            if (count := rows.get(edge.child.name, 0)) > SMALL and count * parents > WORTH_IT
        }
    )


def drop_leftovers(engine: Engine) -> None:
    """Drop what a killed cleanup left, valid or not."""
    language = dialect_of(engine).language
    with engine.connect() as connection:
        names = language.indexes(connection, PREFIX)
    for name in names:
        _run(engine, language, f"DROP INDEX {language.beside_writers} IF EXISTS {name}")


def _run(engine: Engine, language: Language, statement: str) -> bool:
    """Run outside a transaction, without waiting long for anybody; say when it does not work."""
    try:
        with (
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
            language.patience(connection, PATIENCE),
        ):
            connection.exec_driver_sql(statement)
    except DBAPIError as error:
        note(f"going on without: {statement} ({str(error.orig).strip().splitlines()[0]})")
        return False
    return True


@contextmanager
def temporary_indexes(engine: Engine, columns: list[tuple[str, str]]) -> Iterator[None]:
    """Have an index on each (table, column) inside the block; built beside writers where the database can."""
    language = dialect_of(engine).language
    try:
        for table, column in columns:
            note(f"building an index on {table}.{column} for the time of the cleanup")
            name = f"{PREFIX}{table}_{column}"
            statement = f'CREATE INDEX {language.beside_writers} {name} ON "{table}" ("{column}")'
            _run(engine, language, statement)
        yield
    finally:
        if columns:
            drop_leftovers(engine)
