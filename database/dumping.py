"""PostgreSQL: a dump with the rows counted in the same snapshot."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from console import progress, size
from database import catalog
from database.programs import run
from files import sha256, sync

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sqlalchemy import Engine

    from database.programs import Programs


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
        finished = {name: self._rows.get(name.strip('"'), 0) for name in self._seen if name not in now}
        self._seen |= finished | now
        return sum(self._seen.values())
