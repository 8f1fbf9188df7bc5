"""SQLite, as one side of the protocols in `database.dialect` and `database.language`."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import case, create_engine, event, func, text

from console import UserError
from database import sqlitefile
from database.lock import Lock, lock_beside
from database.tables import AUTH, AUTH_REVISION, has_auth
from disks import has_room, writes_to
from files import require_room, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import URL, ColumnElement, Connection, Engine, Select, Table
    from sqlalchemy.exc import DBAPIError

    from database.language import Around
    from database.others import Others

BUSY_TIMEOUT = 20_000  # milliseconds, what MLflow's own sessions use (mlflow.store.db.utils)


class SQLiteLanguage:
    """See `database.language.Language`."""

    one_writer: ClassVar[bool] = True
    enforces_keys: ClassVar[bool] = False  # only for who asks for it, which MLflow did not always
    beside_writers: ClassVar[str] = ""

    def among(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """See `Language.among`: the parameter is one JSON text."""
        return column.in_(text(f"SELECT value FROM json_each(:{name})"))  # noqa: S608 (ours)

    def parameter(self, values: list[Any]) -> str:
        """See `Language.parameter`."""
        return json.dumps(values)

    def json_text(self, column: ColumnElement[Any], key: str) -> ColumnElement[Any]:
        """See `Language.json_text`."""
        valid = case((func.json_valid(column) == 1, column))  # text that is no JSON is an error to SQLite
        return func.json_extract(valid, f'$."{key}"')

    def locking(self, query: Select[Any], table: Table) -> Select[Any]:
        """See `Language.locking`: who may write has all of the database."""
        del table
        return query

    def begin_writing(self, connection: Connection, patience: int = 0) -> None:
        """See `Language.begin_writing`: the driver itself would begin at the first write, after what was read."""
        del patience
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    @contextmanager
    def patience(self, connection: Connection, seconds: int) -> Iterator[None]:
        """See `Language.patience`: a connection to SQLite has its own from the start."""
        del connection, seconds
        yield

    def passes(self, error: DBAPIError) -> bool:
        """See `Language.passes`."""
        return "database is locked" in str(error.orig)

    def missing_right(self, connection: Connection, needed: Sequence[tuple[str, str]]) -> None:
        """See `Language.missing_right`: a file that may not be written says so itself, whatever the table."""
        del needed
        connection.exec_driver_sql("DELETE FROM runs WHERE 0 = 1")
        connection.rollback()

    def around(self, connection: Connection) -> list[Around]:
        """See `Language.around`: there is nothing but the file."""
        del connection
        return []

    def about_rows(self, connection: Connection, tables: set[str]) -> dict[str, int]:
        """See `Language.about_rows`."""
        return {
            table: int(connection.execute(text(f'SELECT max(rowid) FROM "{table}"')).scalar() or 0)  # noqa: S608
            for table in tables
        }

    def indexes(self, connection: Connection, prefix: str) -> list[str]:
        """See `Language.indexes`."""
        query = "SELECT name FROM sqlite_master WHERE type = 'index' AND substr(name, 1, :n) = :prefix"
        return list(connection.execute(text(query), {"n": len(prefix), "prefix": prefix}).scalars())

    def home(self, connection: Connection) -> dict[str, Any]:
        """See `Language.home`: the file's path and number."""
        real = SQLite(connection.engine).path.resolve()
        return {"file": str(real), "inode": real.stat().st_ino}


@dataclass(frozen=True)
class SQLite:
    """See `database.dialect.Dialect`.

    Attributes:
        engine: to the database.
        held: an open connection that `dump` copies from instead of a new one, while `exclusive` holds the file.
    """

    engine: Engine
    held: sqlite3.Connection | None = None
    kind: ClassVar[str] = "sqlite"
    language: ClassVar[SQLiteLanguage] = SQLiteLanguage()

    @staticmethod
    def file(url: URL) -> Path:
        """See `Dialect.file`."""
        return Path((url.database or "").removeprefix("file:")).absolute()

    @classmethod
    def open(cls, url: URL, *, create: bool, foreign_keys: bool, lock_timeout: int, schema: str) -> Engine:
        """See `Dialect.open`."""
        del lock_timeout, schema
        if not url.database or url.database == ":memory:":
            raise UserError(f"an in-memory database ends with its process: '{url}'", "give sqlite:///PATH")
        writes_to(cls.file(url))
        _check_file(cls.file(url), create=create)
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT / 1000})
        _set_pragmas(engine, foreign_keys=foreign_keys)
        return engine

    def knock(self) -> None:
        """See `Dialect.knock`: the file is read only when a statement needs it."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")

    @staticmethod
    def explain(refusal: str, url: URL) -> UserError:
        """See `Dialect.explain`."""
        where = f"database: {url.render_as_string()}"
        lower = refusal.lower()
        if "not a database" in lower or "malformed" in lower:
            return UserError(f"{url.database} is not a SQLite database, or is damaged", where)
        if "locked" in lower:
            return UserError(
                f"{url.database} is locked by another process", where, f"see who: fuser -v {url.database}"
            )
        return UserError(f"cannot open the SQLite database: {refusal.splitlines()[0]}", where)

    @property
    def path(self) -> Path:
        """Return the database's file."""
        return self.file(self.engine.url)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlitefile.open_database(self.path)) as connection:
            yield connection

    def rows(self) -> dict[str, int]:
        """See `Dialect.rows`."""
        with self._open() as connection:
            return sqlitefile.count_rows(connection)

    def users(self) -> list[str]:
        """See `Dialect.users`: processes of this host, where the system tells."""
        using = sqlitefile.users(self.path)
        return using.split(", ") if using else []

    def others(self) -> Others:
        """See `Dialect.others`."""
        with self._open() as connection:
            return sqlitefile.others(connection)

    def identity(self) -> dict[str, Any] | None:
        """See `Dialect.identity`: a file has none."""
        return None

    def size(self) -> int:
        """See `Dialect.size`."""
        parts = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return sum(part.stat().st_size for part in parts if part.exists())

    def has_room(self) -> bool:
        """See `Dialect.has_room`: for the file, and for the journal beside it."""
        return has_room(self.path.parent)

    def vacuum(self, tables: list[str], patience: int) -> None:
        """See `Dialect.vacuum`: the whole file is rewritten."""
        del tables
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {patience * 1000}")
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def lock(self, purpose: str, wait_seconds: float) -> AbstractContextManager[Lock]:
        """See `Dialect.lock`: `flock` on a file beside the database."""
        return lock_beside(self.path, purpose, wait_seconds)

    def dump(
        self, stem: Path, last: Mapping[str, Any] | None, last_file: Path | None, pg_command: str | None
    ) -> dict[str, Any]:
        """See `Dialect.dump`: a copy of the whole file."""
        del last, last_file, pg_command
        folder, target = stem.parent, stem.with_suffix(".sqlite")
        require_room(folder, self.path.stat().st_size, "a copy of the database")
        try:
            with self._open() as own:
                sqlitefile.copy(self.held or own, target, "copying the database")
            with closing(sqlitefile.open_database(target)) as copied:
                rows, at = sqlitefile.count_rows(copied), sqlitefile.revision(copied)
        except sqlite3.OperationalError as error:
            raise UserError(
                f"cannot copy {self.path}: {error}",
                f"is there room in {folder.parent}? df -h {folder.parent}",
            ) from None
        return {
            "revision": at,
            "file": target.name,
            "bytes": target.stat().st_size,
            "sha256": sha256(target),
            "rows": rows,
            "journal_mode": sqlitefile.journal_mode(self.path),
        }

    def replace(
        self, source: Path, part: Mapping[str, Any], ready: Callable[[], None], pg_command: str | None
    ) -> None:
        """See `Dialect.replace`."""
        del pg_command
        path = self.path
        self.engine.dispose()  # our own connections would be in the way, too
        require_room(path.parent, source.stat().st_size, "the restored database")
        ready()
        try:
            with sqlitefile.exclusive(path) as database, _with_others(path, part, database, source) as whole:
                sqlitefile.replace_content(database, whole, "restoring the database", part["journal_mode"])
        except (sqlite3.OperationalError, OSError) as error:
            raise UserError(f"cannot restore to {path}: {error}", "the database is as it was") from None


@contextmanager
def _with_others(
    path: Path, part: Mapping[str, Any], database: sqlite3.Connection, source: Path
) -> Iterator[Path]:
    """Give a database that was dumped with what the present one holds beside MLflow's tables."""
    beside = sqlitefile.others(database)
    beside.refuse_keys()
    if not has_auth(part["rows"]):  # who may log in is not for a dump without it to say
        users = AUTH | {AUTH_REVISION}
        kept = tuple(("TABLE", name) for name in sqlitefile.own_tables(database) if name in users)
        beside = replace(beside, relations=beside.relations + kept)
    if not beside.relations:
        yield source
        return
    work = path.with_name(f"{path.name}.restoring")
    try:
        shutil.copyfile(source, work)
        sqlitefile.keep_others(database, beside, work)
        yield work
    finally:
        for suffix in ("", "-journal"):
            work.with_name(work.name + suffix).unlink(missing_ok=True)


def _check_file(path: Path, *, create: bool) -> None:
    if not path.exists():
        if not create:
            raise UserError(
                f"no SQLite database at {path}",
                "check the path: sqlite:///relative has three slashes, sqlite:////absolute has four",
                "to create it: python -m database prepare --backend-store-uri=sqlite:////PATH",
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()  # SQLite's own is never writable for a group, whatever the umask says
        except OSError as error:
            raise UserError(f"cannot create {path}: {error.strerror}") from None
    elif path.is_dir():
        raise UserError(
            f"{path} is a folder, not a SQLite database", f"did you mean sqlite:///{path}/mlflow.db?"
        )
    for place in (path, path.parent):  # the folder too: SQLite puts its journal there
        if place.exists() and not os.access(place, os.W_OK | os.R_OK):
            raise UserError(f"{place} is not writable for this user", f"see: ls -ld {place}")


def _set_pragmas(engine: Engine, *, foreign_keys: bool) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
        cursor.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
        cursor.close()
