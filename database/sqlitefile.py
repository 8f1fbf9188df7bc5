"""SQLite's file: consistent copies of a live database, and replacing its content in one transaction."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

from console import UserError, progress
from database.others import Key, Others
from database.revision import is_listed
from database.tables import AUTH_REVISION, REVISION, linked, own, revision_table
from files import sync

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGES = 2048  # pages copied between two looks at the clock


def open_database(path: Path, *, wait_seconds: float = 20) -> sqlite3.Connection:
    """Open a SQLite file in autocommit mode."""
    return sqlite3.connect(path, isolation_level=None, timeout=wait_seconds)


def journal_mode(path: Path) -> str:
    """Return ``wal`` or ``delete``; the file format keeps only whether it is WAL."""
    with path.open("rb") as file:
        return "wal" if file.read(20)[18:20] == b"\x02\x02" else "delete"


def sync_commits() -> None:
    """Have SQLite write a commit to disk whole, in every connection that this process opens from now on.

    Its default, FULL, does not write the folder out of which it deletes its journal: a power cut soon after could
    bring the journal back, and with it the state before (SQLite documentation, "PRAGMA synchronous").
    """

    @event.listens_for(Engine, "connect")
    def extra(connection: Any, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = EXTRA")


@contextmanager
def exclusive(path: Path, *, wait_seconds: float = 5) -> Iterator[sqlite3.Connection]:
    """Hold a SQLite file so that no other process reads or writes it, also between transactions.

    ``PRAGMA locking_mode = EXCLUSIVE`` keeps the file lock (SQLite documentation, "Pragma statements"); live
    servers get "database is locked" meanwhile. In WAL mode it needs every other connection to be closed.

    Raises:
        UserError: another process is using it.
    """
    with closing(open_database(path, wait_seconds=wait_seconds)) as connection:
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) and "busy" not in str(error):
                raise
            raise UserError(
                f"{path} is in use by {users(path) or 'another process'}", "stop it first"
            ) from None
        yield connection


def users(path: Path) -> str:
    """Return the processes of this host that have the file open, empty if the system does not tell."""
    using = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            if int(folder.parent.name) == os.getpid():
                continue
            if any(link.readlink() == path for link in folder.iterdir()):
                name = (folder.parent / "comm").read_text().strip()
                using.append(f"process {folder.parent.name} ({name})")
        except OSError:
            continue
    return ", ".join(using)


def copy(source: sqlite3.Connection, target: Path, what: str) -> None:
    """Copy a database through SQLite's online backup, consistent also while others write, and check the copy.

    Args:
        source: an open connection; a read transaction keeps writers from making the copy start over.
        target: a file that does not exist yet.
        what: for the progress line.

    Raises:
        UserError: the copy (so, the source) is damaged.
        sqlite3.OperationalError: for example "database or disk is full".
    """
    source.execute("BEGIN")
    try:
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        with closing(open_database(target)) as connection:
            _pages(source, connection, what)
            connection.execute("PRAGMA journal_mode = DELETE")  # one file, no -wal beside it
            check(connection, target)
    finally:
        source.execute("ROLLBACK")
    sync(target)


def replace_content(database: sqlite3.Connection, new: Path, what: str, mode: str = "delete") -> None:
    """Replace the whole content of an open database by that of the file `new`, in one transaction.

    A crash or a full disk in the middle leaves the old content: SQLite rolls its journal back.

    Args:
        database: held by `exclusive`.
        new: a checked copy.
        what: for the progress line.
        mode: the journal mode to end with.
    """
    database.execute("PRAGMA journal_mode = DELETE")  # a WAL target would have to have the same page size
    with closing(open_database(new)) as source:
        _pages(source, database, what)
    if mode == "wal":
        database.execute("PRAGMA journal_mode = WAL")


def _pages(source: sqlite3.Connection, target: sqlite3.Connection, what: str) -> None:
    page_size = source.execute("PRAGMA page_size").fetchone()[0]
    with progress(what) as step:

        def show(_status: int, remaining: int, total: int) -> None:
            step.total = total * page_size
            step.at((total - remaining) * page_size)

        source.backup(target, pages=_PAGES, progress=show)


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Make sure that a database is sound.

    Raises:
        UserError: SQLite's own check finds damage.
    """
    result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if result != "ok":
        raise UserError(
            f"the database {path} is damaged: {result}", "try: sqlite3 OLD.db .recover | sqlite3 NEW.db"
        )


def table_names(connection: sqlite3.Connection) -> list[str]:
    """Return the name of every table."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    return [name for (name,) in connection.execute(query) if not name.startswith("sqlite_")]


def revision(connection: sqlite3.Connection, table: str = "") -> str | None:
    """Return the revision of MLflow's schema, as `database.catalog.revision` does."""
    names = table_names(connection)
    table = table or revision_table(names)
    if table not in names:
        return None
    rows = connection.execute(f"SELECT version_num FROM {table}").fetchall()  # noqa: S608
    return str(rows[0][0]) if len(rows) == 1 else None


def own_tables(connection: sqlite3.Connection) -> list[str]:
    """Return the tables of MLflow's; see `database.tables`."""
    names = table_names(connection)
    mine = own(names)
    if is_listed(revision(connection, REVISION), revision(connection, AUTH_REVISION)):
        return mine
    tied = linked(mine, [(key.table, key.refers_to) for key in _foreign_keys(connection, names)])
    return [name for name in names if name in tied]


def others(connection: sqlite3.Connection) -> Others:
    """Return what a database holds beside MLflow's tables. A view is its text here, and stays as it is."""
    mine = own_tables(connection)
    query = "SELECT upper(type), name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name"
    names = [(kind, name) for kind, name in connection.execute(query) if not name.startswith("sqlite_")]
    relations = tuple((kind, name) for kind, name in names if kind != "TABLE" or name not in mine)
    keys = _foreign_keys(connection, [name for kind, name in relations if kind == "TABLE"])
    return Others(
        relations,
        tuple(key for key in keys if key.refers_to in mine),
        newer=tuple(name for name in mine if name not in own(mine)),
    )


def _foreign_keys(connection: sqlite3.Connection, tables: list[str]) -> list[Key]:
    return [
        Key(f"{row[0]} ({row[3]})", table, row[2])
        for table in tables
        for row in connection.execute(f'PRAGMA foreign_key_list("{table}")').fetchall()
    ]


def keep_others(old: sqlite3.Connection, beside: Others, new: Path) -> None:
    """Copy what a database holds beside MLflow's tables into the one that shall take its place.

    Args:
        old: an open connection to the database.
        beside: what `others` says of it.
        new: a file of its own; what it has of the same names goes.

    Raises:
        UserError: a virtual table cannot be copied.
    """
    names = [name for _, name in beside.relations]
    marks = ", ".join("?" * len(names))
    query = (
        f"SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name IN ({marks})"  # noqa: S608
        " ORDER BY CASE type WHEN 'table' THEN 0 WHEN 'index' THEN 1 WHEN 'view' THEN 2 ELSE 3 END, rowid"
    )
    with closing(open_database(new)) as connection:
        connection.execute("BEGIN")
        for kind, name in beside.relations:
            connection.execute(f'DROP {kind} IF EXISTS "{name}"')
        for kind, name, _, statement in old.execute(query, names).fetchall():
            if statement.upper().startswith("CREATE VIRTUAL"):
                raise UserError(
                    f"table {name} is not MLflow's and is a virtual one, which cannot be kept",
                    "move it to a database of its own; nothing was changed",
                )
            connection.execute(statement)
            if kind == "table":
                columns = [row[1] for row in old.execute(f'PRAGMA table_info("{name}")')]
                quoted = ", ".join(f'"{column}"' for column in columns)
                rows = old.execute(f'SELECT {quoted} FROM "{name}"')  # noqa: S608
                holders = ", ".join("?" * len(columns))
                connection.executemany(f'INSERT INTO "{name}" ({quoted}) VALUES ({holders})', rows)  # noqa: S608
        connection.execute("COMMIT")


def count_rows(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the number of rows of every table of MLflow's."""
    names = own_tables(connection)
    return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}  # noqa: S608
