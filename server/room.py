"""Whether there is room for what clients send: in the backend store, among the artifacts, for what is spooled."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from database.dialect import dialect_of
from disks import has_room
from server.asgi import NotReady

if TYPE_CHECKING:
    from sqlalchemy import Engine

BACKEND_STORE = "backend store"
ARTIFACTS = "artifacts"
TEMPORARY = "temporary files"


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
    if not dialect_of(engine).has_room():
        raise NotReady("the backend store has no room: its disk is full", full=[BACKEND_STORE])
    folder = Path(artifacts_destination.removeprefix("file://"))
    full = [ARTIFACTS] if "://" not in str(folder) and folder.is_dir() and not has_room(folder) else []
    return full if has_room(Path(tempfile.gettempdir())) else [*full, TEMPORARY]
