"""PostgreSQL: dumps with the rows counted in the same snapshot, and MLflow's tables replaced at once."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy.exc import DBAPIError

from console import UserError, note, progress, size
from database import catalog
from database.lock import Lock, advisory_lock
from database.programs import find_programs, run
from database.replacing import load
from files import sha256, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import Engine

    from database.others import Others
    from database.programs import Programs

# What a set keeps of a database that has not changed since the last one.
_SAME = ("schema", "revision", "file", "bytes", "sha256", "rows", "position", "server_version", "identity")


@dataclass(frozen=True)
class PostgreSQL:
    """See `database.dialect.Dialect`."""

    engine: Engine
    kind: ClassVar[str] = "postgresql"

    def rows(self) -> dict[str, int]:
        """See `Dialect.rows`."""
        with self.engine.connect() as connection:
            return catalog.count_rows(connection)

    def users(self) -> list[str]:
        """See `Dialect.users`."""
        with self.engine.connect() as connection:
            return catalog.other_sessions(connection)

    def others(self) -> Others:
        """See `Dialect.others`."""
        with self.engine.connect() as connection:
            return catalog.others(connection)

    def identity(self) -> dict[str, Any] | None:
        """See `Dialect.identity`."""
        with self.engine.connect() as connection:
            return catalog.identity(connection)

    def size(self) -> int:
        """See `Dialect.size`."""
        with self.engine.connect() as connection:  # PostgreSQL manual, section 9.28.7
            query = "SELECT pg_database_size(current_database())"
            return int(connection.exec_driver_sql(query).scalar_one())

    def vacuum(self, tables: list[str], patience: int) -> None:
        """See `Dialect.vacuum`; each table is locked while it is rewritten (PostgreSQL manual, section 24.1.2)."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # whoever reads a table in a long transaction must not make everybody else wait behind us
            connection.exec_driver_sql(f"SET lock_timeout = '{patience}s'")
            for table in tables:
                connection.exec_driver_sql(f'VACUUM (FULL, ANALYZE) "{table}"')

    def lock(self, purpose: str, wait_seconds: float) -> AbstractContextManager[Lock]:
        """See `Dialect.lock`."""
        return advisory_lock(self.engine, purpose, wait_seconds)

    def dump(
        self, folder: Path, last: Mapping[str, Any] | None, last_file: Path | None, pg_command: str | None
    ) -> dict[str, Any]:
        """See `Dialect.dump`: ``pg_dump -Fc`` of MLflow's tables, or a link to the last one if nothing was written."""
        target = folder / "database.dump"
        with self.engine.connect() as connection:
            version = catalog.server_version(connection)
            identity, where = catalog.identity(connection), catalog.position(connection)
        if last and last_file and where and last.get("position") == where:
            with suppress(OSError):
                target.hardlink_to(last_file)
                note(f"the database has not changed since {last_file.parent.name}: its dump is linked")
                return {name: last[name] for name in _SAME}
        part = dump(self.engine, find_programs(version, pg_command), target)
        return {**part, "server_version": version, "identity": identity}

    def replace(
        self, source: Path, part: Mapping[str, Any], ready: Callable[[], None], pg_command: str | None
    ) -> None:
        """See `Dialect.replace`.

        Raises:
            UserError: also, the dump is of another schema than this database's current one.
        """
        with self.engine.connect() as connection:
            version, here = catalog.server_version(connection), catalog.identity(connection)
            schema = catalog.current_schema(connection)
        if schema != part["schema"]:
            raise UserError(
                f"the backup is of the schema '{part['schema']}', this database's is '{schema}'",
                f"create it and put it first: ALTER ROLE ... SET search_path = {part['schema']}",
            )
        programs = find_programs(version, pg_command)
        load(self.engine, programs, source, part["rows"], owners=part.get("identity") == here, ready=ready)


def dump(engine: Engine, programs: Programs, target: Path) -> dict[str, Any]:
    """Write ``pg_dump -Fc`` of the database, and count its rows in the same snapshot.

    Args:
        engine: to the database.
        programs: from `find_programs`.
        target: the file to write.

    Returns:
        The manifest's part about it: ``schema``, ``revision``, ``file``, ``bytes``, ``sha256``, ``rows``, ``position``.

    Raises:
        UserError: pg_dump failed; its own message is in it.
    """
    with engine.connect() as connection:
        # asked before the snapshot: what is written in between counts as changed, never as unchanged
        where = catalog.position(connection)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        snapshot = connection.exec_driver_sql("SELECT pg_export_snapshot()").scalar_one()
        schema = catalog.current_schema(connection)
        options = ["--format=custom", f"--schema={schema}", f"--snapshot={snapshot}", "--no-password"]
        options += [
            f'--exclude-table="{schema}"."{name}"' for _, name in catalog.others(connection).relations
        ]
        argv = programs.argv("pg_dump", engine.url, *options)
        with (
            target.open("wb") as output,
            run(argv, engine.url, stdin=subprocess.DEVNULL, stdout=output) as job,
        ):
            rows, revision = catalog.count_rows(connection), catalog.revision(connection)
            with progress("pg_dump", sum(rows.values()), "rows") as step, _Dumped(engine, rows) as dumped:
                while job.process.poll() is None:
                    if step.due():
                        step.at(dumped.rows(), f"{size(target.stat().st_size)} written")
                    time.sleep(0.05)
                step.at(step.total, f"{size(target.stat().st_size)} written")
            job.check()
    sync(target)
    return {
        "schema": schema,
        "revision": revision,
        "file": target.name,
        "bytes": target.stat().st_size,
        "sha256": sha256(target),
        "rows": rows,
        "position": where,
    }


class _Dumped:
    """Counts the rows that a running pg_dump has written (PostgreSQL manual, "COPY Progress Reporting")."""

    _QUERY = (
        "SELECT relid::regclass::text, tuples_processed FROM pg_stat_progress_copy"
        " WHERE datname = current_database() AND command = 'COPY TO' AND relid <> 0"
    )

    def __init__(self, engine: Engine, rows: Mapping[str, int]) -> None:
        # a session of its own: inside a transaction the answer would stay the same
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._rows, self._seen = rows, dict[str, int]()

    def __enter__(self) -> _Dumped:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def rows(self) -> int:
        """Return the rows of the tables that were seen to be copied, and of the present one so far."""
        try:
            now: dict[str, int] = dict(self._connection.exec_driver_sql(self._QUERY).tuples().all())
        except DBAPIError:  # PostgreSQL 13 does not tell
            now = dict[str, int]()
        done = {name: self._rows.get(name.strip('"'), 0) for name in self._seen if name not in now}
        self._seen |= done | now
        return sum(self._seen.values())
