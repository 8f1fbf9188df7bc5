"""How large a database is on disk, and how to give space back to the operating system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from console import UserError
from database.connection import sqlite_path

if TYPE_CHECKING:
    from sqlalchemy import Engine

PATIENCE = 60  # seconds to wait for somebody who uses a table


def size(engine: Engine) -> int:
    """Return the bytes that the database takes on disk."""
    path = sqlite_path(engine.url)
    if path is not None:
        return sum(
            part.stat().st_size for part in (path, path.with_name(f"{path.name}-wal")) if part.exists()
        )
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())


def vacuum(engine: Engine, tables: list[str]) -> None:
    """Rewrite the tables without the space of deleted rows (PostgreSQL manual, section 24.1.2).

    Each table is locked while it is rewritten; SQLite rewrites the whole file. Takes about as much free disk
    as the rows that stay.

    Args:
        engine: the backend store.
        tables: all of MLflow's, for an earlier cleanup may have left the space in any of them.

    Raises:
        UserError: the disk is full, or somebody else keeps the database busy. The data is as it was.
    """
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {PATIENCE * 1000}")
                connection.exec_driver_sql("VACUUM")
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                return
            # whoever reads a table in a long transaction must not make everybody else wait behind us
            connection.exec_driver_sql(f"SET lock_timeout = '{PATIENCE}s'")
            for table in tables:
                connection.exec_driver_sql(f'VACUUM (FULL, ANALYZE) "{table}"')
    except DBAPIError as error:
        raise UserError(
            f"the space was not given back: {str(error.orig).strip().splitlines()[0]}",
            "the cleanup itself is done; run it again with --vacuum when that is mended",
        ) from error
