"""PostgreSQL's sessions: how ours are opened, what they are called, and that no limit ends them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, event

from console import UserError

if TYPE_CHECKING:
    import psycopg2
    from sqlalchemy import URL, Engine

APPLICATION_NAME = "mlflow-stacks"
CONNECT_TIMEOUT = 10  # seconds

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


def open_sessions(url: URL, lock_timeout: int, schema: str) -> Engine:
    """Return an engine; see `database.connection.connect`."""
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
    return engine


def _set_up_sessions(engine: Engine, lock_timeout: int, schema: str) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: psycopg2.extensions.connection, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(NO_TIMEOUTS)
            cursor.execute(f"SET lock_timeout = {lock_timeout}")
            if schema:
                cursor.execute(f'SET search_path = "{schema}"')
        connection.commit()


def explain(refusal: str, url: URL) -> UserError:
    """Turn the server's words, or the driver's, into what is wrong and what to type next."""
    reason = refusal.splitlines()[0].strip()
    lower = refusal.lower()
    where = f"database: {url.render_as_string(hide_password=True)}"
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
