"""Waiting for the schema: a server would otherwise migrate an older database without a word."""

from __future__ import annotations

import time

from console import UserError

SECONDS = 300.0


def wait_for_schema(backend: str) -> None:
    """Wait until the step that prepares the schema has done so, or has found it as it must be.

    Args:
        backend: URI of the backend store.

    Raises:
        UserError: it is not done within five minutes.
    """
    deadline = time.monotonic() + SECONDS
    while (problem := _problem(backend)) is not None:
        if time.monotonic() > deadline:
            raise UserError(problem, "the step 'schema' prepares it: invoke logs --service=schema")
        time.sleep(0.2)


def _problem(backend: str) -> str | None:
    """Why the schema cannot be used yet, or None."""
    from sqlalchemy.exc import DBAPIError

    from database.connection import connect
    from database.revision import inspect_schema

    try:
        engine = connect(backend)
    except UserError as error:
        return error.message
    try:
        # Each statement on its own: a transaction that reads several tables would deadlock with the migration.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            schema = inspect_schema(connection)
    except DBAPIError as error:
        return str(error.orig)
    finally:
        engine.dispose()
    return None if schema.state == "current" else f"the schema is {schema.detail}"
