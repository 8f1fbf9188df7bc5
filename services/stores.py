"""``python -m services.stores``: what the tracking server's stores hold, as one JSON object.

For `invoke status`: the schema's state, the bytes of the database and of the artifacts.
"""

from __future__ import annotations

import os
import time
from typing import Any

from artifacts import StoreError, open_store
from console import emit_json, user_errors
from database.connection import connect
from database.dialect import dialect_of
from database.schema import read_schema

LISTING_SECONDS = 10.0


def examine(backend_store_uri: str, artifacts_destination: str) -> dict[str, Any]:
    """Look at both stores.

    Args:
        backend_store_uri: the tracking server's database.
        artifacts_destination: where it keeps artifacts.

    Returns:
        ``schema`` (see `database.revision.Schema.as_json`), ``database`` and ``artifacts`` in bytes. An
        artifact store that does not answer, or lists for longer than 10 seconds, is left out.

    Raises:
        UserError: the database cannot be reached.
    """
    engine = connect(backend_store_uri)
    stores = {"schema": read_schema(engine).as_json(), "database": dialect_of(engine).size()}
    artifacts = _artifact_bytes(artifacts_destination)
    return stores if artifacts is None else {**stores, "artifacts": artifacts}


def _artifact_bytes(destination: str) -> int | None:
    deadline = time.monotonic() + LISTING_SECONDS
    total = 0
    try:
        for stored in open_store(destination, timeout=5).list():
            total += stored.size
            if time.monotonic() > deadline:
                return None
    except StoreError:
        return None
    return total


if __name__ == "__main__":
    with user_errors():
        emit_json(examine(os.environ["MLFLOW_BACKEND_STORE_URI"], os.environ["MLFLOW_ARTIFACTS_DESTINATION"]))
