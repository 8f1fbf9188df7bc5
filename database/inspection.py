"""What is in a database, and what the installed MLflow makes of it; changes nothing."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

from database import postgresql, sqlite
from database.connection import connect, sqlite_path
from database.revision import revisions
from database.schema import read_schema

if TYPE_CHECKING:
    from sqlalchemy import Engine


def source_of(engine: Engine) -> str:
    """Return what a manifest calls a database; inside containers, those of all stacks have the same address."""
    shown = engine.url.render_as_string(hide_password=True)
    project = os.environ.get("_MLFLOW_STACKS_PROJECT")
    return f"{shown} ({project})" if project else shown


def count_rows(engine: Engine) -> dict[str, int]:
    """The number of rows of every table."""
    path = sqlite_path(engine.url)
    if path is not None:
        with closing(sqlite.open_database(path)) as database:
            return sqlite.count_rows(database)
    with engine.connect() as connection:
        return postgresql.count_rows(connection)


def inspect(uri: str) -> dict[str, Any]:
    """Look at a database.

    Returns:
        What `database.revision.Schema.as_json` has, and ``known`` (every revision of the installed MLflow, oldest
        first), ``rows`` (by table), ``source`` and ``identity`` (as a backup set's manifest names the database).

    Raises:
        UserError: it cannot be reached.
    """
    engine = connect(uri, foreign_keys=False)
    try:
        identity = None
        if sqlite_path(engine.url) is None:
            with engine.connect() as connection:
                identity = postgresql.identity(connection)
        return {
            **read_schema(engine).as_json(),
            "known": [step.revision for step in revisions()],
            "rows": count_rows(engine),
            "source": source_of(engine),
            "identity": identity,
        }
    finally:
        engine.dispose()
