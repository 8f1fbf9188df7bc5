"""Whether there is room for what clients send: in the backend store, among the artifacts, for what is spooled."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from database.connection import sqlite_path
from disks import has_room, is_full
from server.asgi import NotReady

if TYPE_CHECKING:
    from sqlalchemy import Engine

BACKEND_STORE = "backend store"
ARTIFACTS = "artifacts"
TEMPORARY = "temporary files"
# PostgreSQL writes what exceeds work_mem (64 kB is the least) to a file beside its tables (manual, section 19.4.1):
# a real write, without a row or a record in the log.
_SPILL = ("SET LOCAL work_mem = '64kB'", "SELECT count(*) FROM generate_series(1, 8000)")


def check(engine: Engine, artifacts_destination: str) -> list[str]:
    """Write a little wherever the server does, and take it back.

    Args:
        engine: of MLflow's tracking store.
        artifacts_destination: where the server keeps artifacts; a bucket is not asked.

    Returns:
        What has no room beside the backend store: uploads fail, all else works.

    Raises:
        NotReady: the backend store has none.
        sqlalchemy.exc.DBAPIError: PostgreSQL fails for another reason.
    """
    if not _database_has_room(engine):
        raise NotReady("the backend store has no room: its disk is full", full=[BACKEND_STORE])
    folder = Path(artifacts_destination.removeprefix("file://"))
    full = [ARTIFACTS] if "://" not in str(folder) and folder.is_dir() and not has_room(folder) else []
    return full if has_room(Path(tempfile.gettempdir())) else [*full, TEMPORARY]


def _database_has_room(engine: Engine) -> bool:
    if file := sqlite_path(engine.url):
        return has_room(file.parent)
    if engine.dialect.name != "postgresql":
        return True
    from sqlalchemy.exc import DBAPIError

    try:
        with engine.begin() as connection:
            for statement in _SPILL:
                connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if is_full(error):
            return False
        raise
    return True
