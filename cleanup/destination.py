"""Whether an artifact destination is the right one: one that is not there looks like one that holds nothing."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from artifacts import StoreError
from artifacts.base import without_password
from artifacts.local import LocalStore
from cleanup.locations import StrangeLocation
from console import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from artifacts import Store
    from cleanup.locations import Destination
    from cleanup.schema import Schema

READY = 2  # mlflow.entities.LoggedModelStatus.to_int
SAMPLE = 20


def check_destination(connection: Connection, schema: Schema, destination: Destination, store: Store) -> None:
    """Refuse a destination that cannot be the one the database's artifacts are in.

    Raises:
        UserError: it is not there, or holds nothing of any of the newest logged models and of what registered
            versions name.
    """
    hint = (
        "give --artifacts-destination as the tracking server has it; rows would go and their artifacts stay"
    )
    claim = "if it is the right one, and new or emptied: --claim"
    shown = without_password(store.uri)
    if not _is_there(store):
        raise UserError(f"the artifact destination {shown} is not there, or empty", hint, claim)
    folders = list(islice(_expected(connection, schema, destination), SAMPLE))
    if folders and not any(_holds(store, folder) for folder in folders):
        raise UserError(
            f"the artifact destination {shown} holds nothing of {len(folders)} models that should be in it",
            f"such as {folders[0]}",
            hint,
            claim,
        )


def _is_there(store: Store) -> bool:
    if isinstance(store, LocalStore):
        return Path(store.uri).is_dir()
    try:
        return next(iter(store.list()), None) is not None
    except StoreError as error:
        raise UserError(
            f"the artifact destination cannot be read: {error}",
            "nothing was changed; run the same command again when the store answers",
        ) from None


def _holds(store: Store, folder: str) -> bool:
    try:
        return next(iter(store.list(folder)), None) is not None
    except StoreError:  # its own reason is told when it is to be deleted from
        return True


def _expected(connection: Connection, schema: Schema, destination: Destination) -> Iterator[str]:
    """Yield folders that hold something, unless somebody deleted it by hand, the newest first."""
    queries = []
    if schema.has("logged_models", "artifact_location", "status"):
        models = schema.tables["logged_models"]
        newest = models.c.creation_timestamp_ms.desc()
        queries.append(select(models.c.artifact_location).where(models.c.status == READY).order_by(newest))
    if schema.has("model_versions", "storage_location"):
        versions = schema.tables["model_versions"]
        named = versions.c.storage_location != ""
        queries.append(
            select(versions.c.storage_location).where(named).order_by(versions.c.creation_time.desc())
        )
    for query in queries:
        for location in connection.execute(query.limit(SAMPLE)).scalars():
            try:
                yield destination.key(location)
            except StrangeLocation:  # elsewhere
                continue
