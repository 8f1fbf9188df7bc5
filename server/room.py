"""Whether there is room for what clients send: in the backend store, among the artifacts, for what is spooled."""

from __future__ import annotations

import http.client
import tempfile
from contextlib import closing, suppress
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
ANSWERS_WITHIN = 1.0  # seconds; no answer does not make the server unready


def check(engine: Engine, artifacts_destination: str, store_room: str = "") -> list[str]:
    """Write a little wherever the server does, and take it back.

    Args:
        engine: of MLflow's tracking store.
        artifacts_destination: where the server keeps artifacts; a bucket is not written to.
        store_room: address where the bucket's store says whether it has room, if it is one that does.

    Returns:
        What has no room beside the backend store: uploads fail, all else works.

    Raises:
        NotReady: the backend store has none.
        sqlalchemy.exc.DBAPIError: PostgreSQL fails for another reason.
    """
    if not dialect_of(engine).has_room():
        raise NotReady("the backend store has no room: its disk is full", full=[BACKEND_STORE])
    folder = Path(artifacts_destination.removeprefix("file://"))
    full = [ARTIFACTS] if (folder.is_dir() and not has_room(folder)) or _store_is_full(store_room) else []
    return full if has_room(Path(tempfile.gettempdir())) else [*full, TEMPORARY]


def _store_is_full(address: str) -> bool:
    """Whether the object store says so; what is no answer says nothing of its room."""
    if not address:
        return False
    host, _, path = address.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=ANSWERS_WITHIN)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", f"/{path}")
        return connection.getresponse().status == http.HTTPStatus.INSUFFICIENT_STORAGE
    return False
