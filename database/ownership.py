"""Whose an artifact destination is: its mark names the one database that may take what it does not know for orphans.

Two servers may share a bucket, a database may be a copy of the one that writes there: to either all of the other's
artifacts look like orphans. So the mark, a small JSON object, names a database by an id that is kept in it, and by
where it was when it was marked, which a copy does not share.

The id is the one row of a table of ours. Its name begins as those of Alembic's own do, and so every MLflow leaves it
out when it looks whether a database is empty or whole (mlflow.store.db.utils).
"""

from __future__ import annotations

import json
import os
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from sqlalchemy import Column, MetaData, String, Table, delete, insert, inspect, select
from sqlalchemy.exc import DBAPIError

from artifacts import StoreError, open_store
from artifacts.base import OWN, without_password
from artifacts.s3 import reach
from console import UserError, note
from database.connection import connect
from database.dialect import dialect_of

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from artifacts import Store

MARK = f"{OWN}owner.json"
TABLE = "alembic_version_mlflow_stacks"
KEPT = Table(TABLE, MetaData(), Column("version_num", String(36), nullable=False))
STARTING_UP = 120.0  # seconds; a store and its bucket that are being made beside this
State = Literal["ours", "unmarked", "moved", "others"]


@dataclass(frozen=True)
class Ownership:
    """Whose a destination is.

    `state` is "ours", "unmarked", "moved" (the mark has this database's id and was made elsewhere: this is a copy, or
    it was moved or put back) or "others". `database` names the marked one for people; `since` is when it was marked.
    """

    state: State
    database: str = ""
    since: str = ""

    @property
    def ours(self) -> bool:
        """Whether what nothing in this database owns belongs to nobody."""
        return self.state == "ours"

    def __str__(self) -> str:
        """Say why not, for the end of a sentence."""
        named = f"{self.database}, since {self.since}"
        return {
            "ours": "it is marked as this database's alone",
            "unmarked": "no mark says that it is this database's alone",
            "moved": f"it is marked as that of the database at {named}, of which this is a copy, unless it was moved",
            "others": f"it is marked as that of another database ({named})",
        }[self.state]


def read(connection: Connection, store: Store) -> Ownership:
    """Tell whose the destination is; changes nothing, and ends the transaction.

    Raises:
        StoreError: the store cannot be read.
    """
    connection.rollback()  # hold no snapshot while the store is slow
    mark = _read_mark(store)
    if mark is None:
        return Ownership("unmarked")
    own, here = _identity(connection), dialect_of(connection.engine).language.home(connection)
    connection.rollback()
    named, since = str(mark.get("named", "unknown")), str(mark.get("since", "an unknown time"))
    if own is None or mark.get("database") != own:
        return Ownership("others", named, since)
    return Ownership("ours" if mark.get("home") == here else "moved", named, since)


def claim(engine: Engine, store: Store) -> Ownership:
    """Mark the destination as this database's alone, in place of any other mark.

    A database that is a copy of the marked one gets an id of its own, so that the other knows that it was put out.

    Raises:
        StoreError: the store cannot be written.
        UserError: this database role may not keep an id.
    """
    language = dialect_of(engine).language
    try:
        with engine.connect() as connection:
            renew = read(connection, store).state == "moved"
            language.begin_writing(connection)
            KEPT.create(connection, checkfirst=True)
            own = _identity(connection)
            if own is None or renew:
                connection.execute(delete(KEPT))
                own = str(uuid.uuid4())
                connection.execute(insert(KEPT).values(version_num=own))
            here = language.home(connection)
            connection.commit()
    except DBAPIError as error:
        raise UserError(
            f"this database cannot keep the id that a mark needs: {str(error.orig).strip().splitlines()[0]}",
            f"the role needs the right to make the table {TABLE}",
        ) from None
    mark = {
        "database": own,
        "home": here,
        "named": engine.url.set(username=None, password=None, query={}).render_as_string(),
        "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S UTC}",
        "about": "artifacts that this MLflow database does not know are orphans; written by mlflow-stacks",
    }
    with TemporaryDirectory() as name:
        file = Path(name) / "owner.json"
        file.write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")
        store.put(file, MARK, None)
    with engine.connect() as connection:
        return read(connection, store)


def settle(uri: str, destination: str, *, alone: bool) -> None:
    """Mark a destination before its server starts, where nothing speaks against it; refuse another database's.

    What holds artifacts already and is not known to be this database's alone is left unmarked: cleanup asks.

    Args:
        uri: the backend store, with its schema.
        destination: the artifact destination.
        alone: it is known to be nobody else's: the stack keeps it itself.

    Raises:
        UserError: another database keeps its artifacts there.
    """
    deadline = time.monotonic() + (STARTING_UP if alone and destination.startswith("s3://") else 0)
    engine = connect(uri)
    try:
        while True:
            try:
                _require_listener(destination)
                _settle(engine, open_store(destination), alone=alone)
            except StoreError as error:  # that it works is proven by others; a mark can be written later, too
                if time.monotonic() >= deadline:
                    note(f"the artifact destination was not marked: {error}")
                    return
                time.sleep(0.2)
            else:
                return
    finally:
        engine.dispose()


def _require_listener(destination: str) -> None:
    """Raise StoreError where nobody listens at a store's own endpoint."""
    endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL")
    if endpoint and destination.startswith("s3://"):
        try:
            reach(endpoint)
        except OSError as error:
            raise StoreError(f"nobody listens at {urlsplit(endpoint).netloc}: {error}") from None


def _settle(engine: Engine, store: Store, *, alone: bool) -> None:
    with engine.connect() as connection:
        owner = read(connection, store)
    if owner.ours:
        return
    if not alone:
        if owner.state == "others":
            raise UserError(
                f"the artifact destination {without_password(store.uri)} is another database's: {owner}",
                "give this stack a folder of its own there: invoke up --set s3_prefix=NAME",
                f"or, when no other server uses it any more, remove its mark: {MARK}",
            )
        if owner.state == "moved" or any(True for _ in store.list()):
            note(f"the artifact destination was not marked: {owner}; see: invoke cleanup --claim")
            return
    claim(engine, store)


def _identity(connection: Connection) -> str | None:
    if not inspect(connection).has_table(TABLE):
        return None
    return connection.execute(select(KEPT.c.version_num)).scalar()


def _read_mark(store: Store) -> dict[str, Any] | None:
    with TemporaryDirectory() as name:
        file = Path(name) / "owner.json"
        if store.fetch(MARK, file) is None:
            return None
        try:
            mark = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            mark = None
        return mark if isinstance(mark, dict) else {}  # unreadable: somebody's
