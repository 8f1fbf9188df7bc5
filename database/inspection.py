"""What is in a database, and what the installed MLflow makes of it; changes nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from database.connection import connect
from database.dialect import dialect_of
from database.revision import revisions
from database.schema import read_schema

if TYPE_CHECKING:
    from sqlalchemy import Engine


def source_of(engine: Engine) -> str:
    """Return what a manifest calls a database; inside containers, those of all stacks have the same address."""
    shown = engine.url.render_as_string(hide_password=True)
    project = os.environ.get("_MLFLOW_STACKS_PROJECT")
    return f"{shown} ({project})" if project else shown


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
        database = dialect_of(engine)
        return {
            **read_schema(engine).as_json(),
            "known": [step.revision for step in revisions()],
            "rows": database.rows(),
            "source": source_of(engine),
            "identity": database.identity(),
        }
    finally:
        engine.dispose()
