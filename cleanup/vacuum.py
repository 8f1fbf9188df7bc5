"""How large a database is on disk, and how to give space back to the operating system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from console import UserError
from database.dialect import dialect_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

PATIENCE = 60  # seconds to wait for somebody who uses a table


def size(engine: Engine) -> int:
    """Return the bytes that the database takes on disk."""
    return dialect_of(engine).size()


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
        dialect_of(engine).vacuum(tables, PATIENCE)
    except DBAPIError as error:
        raise UserError(
            f"the space was not given back: {str(error.orig).strip().splitlines()[0]}",
            "the cleanup itself is done; run it again with --vacuum when that is mended",
        ) from error
