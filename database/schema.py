"""Bring a schema to the head with MLflow's own migration; the one-shot step before a server starts."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from console import UserError, note
from database.address import redact
from database.connection import connect
from database.dialect import maintenance_lock
from database.revision import (
    BASIC_AUTH,
    FIRST_OF_AUTH,
    MAIN,
    Line,
    Schema,
    Step,
    inspect_schema,
    lines_of,
    mlflow_folder,
    refusal,
)
from process.loading import loading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from alembic.script import ScriptDirectory
    from sqlalchemy import Engine

    OnStep = Callable[[int, int, Step], None]


# No migration may lose rows of these: what users logged.
KEPT = (
    "experiments",
    "runs",
    "metrics",
    "latest_metrics",
    "params",
    "tags",
    "registered_models",
    "model_versions",
    "users",
)


def read_schema(engine: Engine, *, auth_alone: bool = False) -> Schema:
    """Tell the state of the schema of one database; see `inspect_schema`."""
    with engine.connect() as connection:
        return inspect_schema(connection, auth_alone=auth_alone)


def prepare(uri: str, *, wait_seconds: float = 300, server_wait: float = 0) -> Schema:
    """Make a database ready for the installed MLflow before its server starts; safe when several run at once.

    Creates the schema in an empty database, does nothing when it is current.

    Args:
        uri: the backend store; the file of a SQLite database is created.
        wait_seconds: how long to wait for another process that holds the maintenance lock.
        server_wait: how long to wait for a server that does not let us in yet, as when it has just been started
            and its roles are being made.

    Raises:
        UserError: the database cannot be opened, the schema is behind (migrate first), ahead or unknown, or the
            lock is taken.
    """
    engine = _connect(uri, server_wait)
    try:
        schema = read_schema(engine)
        if schema.state == "empty":
            with maintenance_lock(engine, "prepare", wait_seconds) as lock:
                if read_schema(engine).state == "empty":  # unless another one was faster
                    note(f"creating the schema of MLflow {schema.mlflow_version}")
                    run_migration(engine, lambda _done, _total, _step: lock.check())
                schema = read_schema(engine)
        if schema.state == "behind":
            first = f"the schema is {schema.detail}; a server would migrate it without a backup"
            raise UserError(
                first, f"database: {redact(uri)}", "to migrate it, with a backup first: invoke migrate"
            )
        if schema.state != "current":
            raise refusal(schema, redact(uri))
        return schema
    finally:
        engine.dispose()


def _connect(uri: str, server_wait: float) -> Engine:
    deadline = time.monotonic() + server_wait
    while True:
        try:
            return connect(uri, create=True, foreign_keys=False)
        except UserError:
            if time.monotonic() >= deadline:
                raise
        _script()  # takes seconds, and whoever waits has them: a server that is being started may well be a new one
        time.sleep(0.1)


@cache
def _script(line: Line = MAIN) -> ScriptDirectory:
    """MLflow's revisions, with all that they import."""
    with loading():
        import mlflow.store.db.base_sql_model  # noqa: F401 - for env.py
        from alembic.script import ScriptDirectory

        script = ScriptDirectory(str(mlflow_folder() / line.folder))
        script.get_heads()
    return script


def run_migration(engine: Engine, on_step: OnStep, lines: Sequence[Line] = ()) -> None:
    """Run MLflow's own migration from wherever the schema is to its head.

    PostgreSQL runs all revisions of a line in one transaction; SQLite commits each statement, so migrate a copy there.

    Args:
        engine: to the database; for SQLite with ``foreign_keys=False``.
        on_step: called before each revision with the number done, the number in all, and the revision;
            what it raises stops the migration.
        lines: which lines of revisions; by default those whose tables are there.

    Raises:
        Exception: whatever a revision raises, unchanged.
    """
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import inspect

    for line in lines or lines_of(inspect(engine).get_table_names()):
        if (
            line == MAIN and read_schema(engine).state == "empty"
        ):  # as mlflow.store.db.utils._initialize_tables
            Base.metadata.create_all(engine)
        _run_line(engine, on_step, line)


def _run_line(engine: Engine, on_step: OnStep, line: Line) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from sqlalchemy import inspect

    script = _script(line)
    config = Config(str(mlflow_folder() / line.folder / "alembic.ini"))
    names = inspect(engine).get_table_names()

    def steps(current: Any, _context: object) -> Iterator[object]:
        if line == BASIC_AUTH and "users" in names and not current:  # as mlflow.server.auth.db.utils does
            yield from script._stamp_revs(FIRST_OF_AUTH, current)
            current = FIRST_OF_AUTH
        pending = script._upgrade_revs("heads", current)  # what alembic.command.upgrade runs
        for number, step in enumerate(pending):
            title = (step.doc or "").strip()
            on_step(number, len(pending), Step(str(step.revision.revision), title))
            yield step

    with (
        engine.connect() as connection,
        _quiet(),
        EnvironmentContext(config, script, fn=steps) as environment,
    ):
        if line == MAIN:
            config.attributes["connection"] = connection  # mlflow's env.py takes its engine
            script.run_env()
        else:  # its env.py would import the whole server, and connect by itself
            environment.configure(connection=connection, version_table=line.table)
            with environment.begin_transaction():
                environment.run_migrations()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Alembic's own line per revision off the terminal: progress is shown by the caller."""
    logger = logging.getLogger("alembic")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
