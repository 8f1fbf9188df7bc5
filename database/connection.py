"""From a backend store URI to an engine that is known to work, or to a message that says why it does not."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from console import UserError
from disks import writes_to

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECT_TIMEOUT = 10  # seconds
BUSY_TIMEOUT = 20_000  # milliseconds, what MLflow's own sessions use (mlflow.store.db.utils)
APPLICATION_NAME = "mlflow-stacks"

_POSTGRESQL_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+psycopg2", "postgresql+psycopg"})


def redact(uri: str) -> str:
    """Return `uri` with any password in it replaced by ``***``."""
    uri = re.sub(r"(?<=://)([^/?@:]*):.*@", r"\1:***@", uri)
    return re.sub(r"(?i)(password=)[^&\s]+", r"\1***", uri)


def normalize(uri: str) -> URL:
    """Parse a backend store URI and name its driver.

    ``postgres://`` and ``postgresql://`` become ``postgresql+psycopg2://``: SQLAlchemy 2.1 would choose
    psycopg 3, and MLflow's job lock manager knows only psycopg2.

    Raises:
        UserError: not a URI, an in-memory database, or a database other than PostgreSQL and SQLite.
    """
    scheme = uri.partition("://")[0] if "://" in uri else ""
    if not scheme or scheme in {"file", "http", "https", "databricks"}:
        raise UserError(
            f"not a database URI: '{redact(uri)}'",
            "give postgresql+psycopg2://USER@HOST:5432/DATABASE or sqlite:////absolute/path/mlflow.db",
        )
    try:
        url = make_url(uri)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        raise UserError(
            f"cannot read the database URI '{redact(uri)}'",
            "percent-encode special characters in user and password, or keep the password in PGPASSFILE",
        ) from None
    if scheme in _POSTGRESQL_SCHEMES:
        return url.set(drivername="postgresql+psycopg2")
    if backend != "sqlite":
        raise UserError(
            f"no support for databases of kind '{backend}': '{redact(uri)}'",
            "supported: PostgreSQL (postgresql+psycopg2://) and SQLite (sqlite:///)",
        )
    if not url.database or url.database == ":memory:":
        raise UserError(
            f"an in-memory database ends with its process: '{redact(uri)}'", "give sqlite:///PATH"
        )
    return url


def sqlite_path(uri: str | URL) -> Path | None:
    """Return the absolute path of a SQLite database's file, or None for another kind of database."""
    url = normalize(uri) if isinstance(uri, str) else uri
    if url.get_backend_name() != "sqlite":
        return None
    return Path((url.database or "").removeprefix("file:")).absolute()


def is_missing(uri: str) -> bool:
    """Whether the database is a file that does not exist yet."""
    path = sqlite_path(uri)
    return path is not None and not path.exists()


def connect(
    uri: str,
    *,
    create: bool = False,
    foreign_keys: bool = True,
    lock_timeout: int = 0,
    schema: str = "",
) -> Engine:
    """Return an engine whose database has answered.

    PostgreSQL passwords may come through ``PGPASSFILE`` (libpq, "The Password File"). SQLite connections get
    ``busy_timeout`` and, unless told otherwise, ``foreign_keys``.

    Args:
        uri: the backend store.
        create: for SQLite, allow a file that does not exist yet (its folder is made).
        foreign_keys: for SQLite, enforce them. Off for migrations: Alembic's batch mode drops and
            re-creates tables, and SQLite would cascade that drop to the rows of other tables.
        lock_timeout: for PostgreSQL, the milliseconds that a statement waits for a lock, 0 for no limit.
        schema: for PostgreSQL, the schema to work in; that of the role or the URI if empty.

    Raises:
        UserError: unreachable, wrong password, no such database, not a database, not writable.
    """
    url = normalize(uri)
    path = sqlite_path(url)
    if path is not None:
        writes_to(path)
        _check_file(path, create=create)
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT / 1000})
        _set_pragmas(engine, foreign_keys=foreign_keys)
    else:
        defaults: dict[str, str | int] = {
            "connect_timeout": CONNECT_TIMEOUT,
            "application_name": APPLICATION_NAME,
            # one of a millisecond ends even the statement that would lift it
            "options": "-c statement_timeout=0",
            "keepalives_idle": 30,
            "keepalives_interval": 10,
        }
        given = {name: value for name, value in defaults.items() if name not in url.query}
        engine = create_engine(url, pool_pre_ping=True, connect_args=given)
        _set_up_sessions(engine, lock_timeout, schema)
    try:
        with engine.connect() as connection:
            if path is not None:  # SQLite reads the file only when a statement needs it
                connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
    except DBAPIError as error:
        engine.dispose()
        raise _explain(error, url) from None
    return engine


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


# What a role, a database or a server may have set for statements of a web application; a dump takes longer.
TIMEOUTS = (
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",  # from PostgreSQL 14 on
    "transaction_timeout",  # from PostgreSQL 17 on
)
# Every one of them that this server knows becomes 0, and so without a limit.
NO_TIMEOUTS = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ({})".format(  # noqa: S608
    ", ".join(f"'{name}'" for name in TIMEOUTS)
)


def _set_up_sessions(engine: Engine, lock_timeout: int, schema: str) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: psycopg2.extensions.connection, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(NO_TIMEOUTS)
            cursor.execute(f"SET lock_timeout = {lock_timeout}")
            if schema:
                cursor.execute(f'SET search_path = "{schema}"')
        connection.commit()


@contextmanager
def driver_errors(doing: str) -> Iterator[None]:
    """Turn what a database refuses in the middle of something into a message.

    Args:
        doing: the verb, for the message: ``backup``.

    Raises:
        UserError: the block raised an error of a driver.
    """
    try:
        yield
    except (DBAPIError, sqlite3.Error, psycopg2.Error) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        hints = [line.strip() for line in reason[1:4]]
        raise UserError(f"the database ended the {doing}: {redact(reason[0])}", *map(redact, hints)) from None


def _explain(error: Exception, url: URL) -> UserError:
    """Turn a driver's first refusal into what is wrong and what to type next."""
    text = str(getattr(error, "orig", None) or error).strip()
    shown = url.render_as_string(hide_password=True)
    reason = text.splitlines()[0].strip() if text else "no reason given"
    lower = text.lower()
    where = f"database: {shown}"
    if url.get_backend_name() == "sqlite":
        if "not a database" in lower or "malformed" in lower:
            return UserError(f"{url.database} is not a SQLite database, or is damaged", where)
        if "locked" in lower:
            return UserError(
                f"{url.database} is locked by another process", where, f"see who: fuser -v {url.database}"
            )
        return UserError(f"cannot open the SQLite database: {reason}", where)
    if "password" in lower or "authentication" in lower or "no pg_hba.conf entry" in lower:
        passfile = os.environ.get("PGPASSFILE", "~/.pgpass")
        return UserError(
            f"PostgreSQL refused the user: {reason}",
            where,
            f"the password comes from the URI, PGPASSWORD or {passfile}",
            "(a file of mode 0600 with lines host:port:database:user:password)",
        )
    if "does not exist" in lower:
        create = f"createdb -h {url.host or 'localhost'} -p {url.port or 5432} {url.database}"
        return UserError(
            f"PostgreSQL has no such database or role: {reason}", where, f"to create it: {create}"
        )
    return UserError(
        f"PostgreSQL does not answer: {reason}",
        where,
        f"is it up? pg_isready -h {url.host or 'localhost'} -p {url.port or 5432}",
    )
