"""From a backend store URI to an engine that is known to work, or to a message that says why it does not."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2
from sqlalchemy.exc import DBAPIError

from console import UserError
from database.address import normalize, redact
from database.dialect import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine


def is_missing(uri: str) -> bool:
    """Whether the database is a file that does not exist yet."""
    url = normalize(uri)
    file = kind_of(url).file(url)
    return file is not None and not file.exists()


def connect(
    uri: str,
    *,
    create: bool = False,
    foreign_keys: bool = True,
    lock_timeout: int = 0,
    schema: str = "",
) -> Engine:
    """Return an engine whose database has answered.

    PostgreSQL passwords may come through ``PGPASSFILE`` (libpq, "The Password File"). SQLite connections get
    ``busy_timeout`` and, unless told otherwise, ``foreign_keys``.

    Args:
        uri: the backend store.
        create: for SQLite, allow a file that does not exist yet (its folder is made).
        foreign_keys: for SQLite, enforce them. Off for migrations: Alembic's batch mode drops and
            re-creates tables, and SQLite would cascade that drop to the rows of other tables.
        lock_timeout: for PostgreSQL, the milliseconds that a statement waits for a lock, 0 for no limit.
        schema: for PostgreSQL, the schema to work in; that of the role or the URI if empty.

    Raises:
        UserError: unreachable, wrong password, no such database, not a database, not writable.
    """
    url = normalize(uri)
    kind = kind_of(url)
    engine = kind.open(
        url, create=create, foreign_keys=foreign_keys, lock_timeout=lock_timeout, schema=schema
    )
    try:
        kind(engine).knock()
    except DBAPIError as error:
        engine.dispose()
        raise kind.explain(str(error.orig or error).strip() or "no reason given", url) from None
    return engine


@contextmanager
def driver_errors(doing: str) -> Iterator[None]:
    """Turn what a database refuses in the middle of something into a message.

    Args:
        doing: the verb, for the message: ``backup``.

    Raises:
        UserError: the block raised an error of a driver.
    """
    try:
        yield
    except (DBAPIError, sqlite3.Error, psycopg2.Error) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        hints = [line.strip() for line in reason[1:4]]
        raise UserError(f"the database ended the {doing}: {redact(reason[0])}", *map(redact, hints)) from None
