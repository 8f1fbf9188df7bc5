"""One lock for everything that must have a database for itself: migrate, cleanup, backup, restore.

PostgreSQL: a session-level advisory lock (manual, section 13.3.5) on a connection of its own. SQLite: `flock`
on a file beside the database. Both end with the process that holds them, however it ends.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from console import UserError
from database.sessions import APPLICATION_NAME
from files import Holder, file_lock, myself, wait_for_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

# Two 32-bit numbers name the lock: "MLfl", "ows1". It belongs to one database, not to the cluster.
_KEY = (0x4D4C666C, 0x6F777331)
_WHAT = "the maintenance lock"


@dataclass(frozen=True)
class Lock:
    """The lock while it is held."""

    holder: Holder
    _still_held: Callable[[], bool]

    def check(self) -> None:
        """Make sure that the lock is still held; call it before each step that cannot be taken back.

        Raises:
            UserError: the connection that held it was lost.
        """
        if not self._still_held():
            raise UserError(
                f"the maintenance lock was lost during {self.holder.purpose}",
                "the database ended the connection that held it: a restart, or a pooler such as PgBouncer",
                "nothing more was changed; run the command again",
            )


def _refusal(purpose: str, wait_seconds: float) -> Callable[[str], UserError]:
    return lambda who: UserError(
        f"cannot start {purpose}: the maintenance lock of this database is {who}",
        f"waited {wait_seconds:.0f} s; wait for it to end, or give a longer --wait=SECONDS",
    )


@contextmanager
def advisory_lock(engine: Engine, purpose: str, wait_seconds: float) -> Iterator[Lock]:
    """Hold PostgreSQL's lock inside the block; see `database.dialect.maintenance_lock`."""
    with engine.connect() as connection:
        connection.detach()  # closing it ends the session, and the lock with it
        # the driver's own: what is set with an option of SQLAlchemy is set back on the next session of the pool,
        # which from then on asks the server once more whenever it is taken
        connection.connection.dbapi_connection.autocommit = True  # type: ignore[union-attr]
        run = connection.exec_driver_sql
        wait_for_lock(
            lambda: bool(run("SELECT pg_try_advisory_lock(%s, %s)", _KEY).scalar()),
            lambda: _postgresql_holder(connection),
            _WHAT,
            wait_seconds,
            _refusal(purpose, wait_seconds),
        )
        me = myself(purpose)
        # visible to every role in pg_stat_activity; 63 bytes are kept
        run("SELECT set_config('application_name', %s, false)", (_application_name(me),))

        def still_held() -> bool:
            try:
                return bool(run(f"{_HOLDERS} AND pid = pg_backend_pid()", _KEY).scalar())
            except SQLAlchemyError:
                return False

        yield Lock(me, still_held)


_HOLDERS = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
    " AND classid = %s AND objid = %s AND objsubid = 2"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def _application_name(holder: Holder) -> str:
    tail = f" {holder.purpose} {holder.pid} {holder.since}"
    room = 63 - len(APPLICATION_NAME) - 1 - len(tail)
    return f"{APPLICATION_NAME} {holder.host[:room]}{tail}"


def _postgresql_holder(connection: Connection) -> Holder | None:
    query = f"SELECT application_name FROM pg_stat_activity WHERE pid IN ({_HOLDERS})"  # noqa: S608
    name = connection.exec_driver_sql(query, _KEY).scalar() or ""
    match str(name).split():
        case [_, host, purpose, pid, since] if pid.isdigit() and since.isdigit():
            return Holder(host, int(pid), purpose, int(since))
        case _:
            return None


@contextmanager
def lock_beside(guarded: Path, purpose: str, wait_seconds: float) -> Iterator[Lock]:
    """Hold the lock file beside a file or folder inside the block; see `maintenance_lock`.

    Raises:
        UserError: another process holds it, or it cannot be opened.
    """
    path = guarded.with_name(f"{guarded.name}.lock")
    refusal = _refusal(purpose, wait_seconds)
    with file_lock(path, purpose, refusal, what=_WHAT, wait_seconds=wait_seconds) as still_held:
        yield Lock(myself(purpose), still_held)
