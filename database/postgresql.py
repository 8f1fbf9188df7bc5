"""PostgreSQL: dumps with the rows counted in the same snapshot, and replacing everything at once."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from console import progress, size
from database.others import Key, Others
from database.programs import run
from database.revision import is_listed
from database.tables import REVISION, linked, own
from files import sha256, sync

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from database.programs import Programs


def server_version(connection: Connection) -> int:
    """Return the server's version as a number, such as 180004."""
    return int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())


def current_schema(connection: Connection) -> str:
    """Return the schema in which MLflow's tables are or will be."""
    return str(connection.exec_driver_sql("SELECT current_schema()").scalar_one())


def table_names(connection: Connection, schema: str = "") -> list[str]:
    """Return the name of every table of a schema, by default the current one."""
    query = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY tablename"
    return [
        str(name)
        for name in connection.exec_driver_sql(query, (schema or current_schema(connection),)).scalars()
    ]


def own_tables(connection: Connection) -> list[str]:
    """Return the tables of MLflow's in the current schema; see `database.tables`."""
    names = table_names(connection)
    mine = own(names)
    if REVISION not in names:
        return mine
    revision = connection.exec_driver_sql(f"SELECT max(version_num) FROM {REVISION}").scalar()  # noqa: S608
    if is_listed(revision):
        return mine
    tied = linked(mine, [(key.table, key.refers_to) for key in _foreign_keys(connection)])
    return [name for name in names if name in tied]


def count_rows(connection: Connection) -> dict[str, int]:
    """Return the number of rows of every table of MLflow's in the current schema."""
    return {
        name: int(connection.exec_driver_sql(f'SELECT count(*) FROM "{name}"').scalar_one())  # noqa: S608
        for name in own_tables(connection)
    }


def position(connection: Connection) -> dict[str, Any] | None:
    """Return where the data stands, so that an equal answer later means equal data; None when unsure.

    Every change of a row needs a transaction number, and ``pg_current_snapshot`` (manual, section 9.28) ends
    at the newest finished one. With none in progress before it, the same end later means that nothing was
    written.
    """
    query = "SELECT pg_current_snapshot()::text, (SELECT timeline_id FROM pg_control_checkpoint())"
    snapshot, timeline = connection.exec_driver_sql(query).one()
    lowest, highest, running = snapshot.split(":")
    if lowest != highest or running:
        return None
    return {**identity(connection), "timeline": timeline, "transaction": int(highest)}


def identity(connection: Connection) -> dict[str, Any]:
    """Return what tells this database from every other: the numbers of the cluster and of the database."""
    query = (
        "SELECT (SELECT system_identifier::text FROM pg_control_system()),"
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    system, database = connection.exec_driver_sql(query).one()
    return {"system": system, "database": database}


def other_sessions(connection: Connection) -> list[str]:
    """Return who else is connected to the database, a line each; this project's own sessions left out."""
    query = (
        "SELECT coalesce(nullif(application_name, ''), 'unnamed'), usename,"
        " coalesce(host(client_addr), 'local'), state"
        " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend' AND application_name NOT LIKE 'mlflow-stacks%%' ORDER BY pid"
    )
    rows = connection.exec_driver_sql(query).all()
    return [
        f"{name} ({user} from {address}, {state or 'state hidden'})" for name, user, address, state in rows
    ]


def others(connection: Connection) -> Others:
    """Return what else is in the current schema, of no extension, and what elsewhere leans on MLflow's tables."""
    query = (
        "SELECT CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'"
        " WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, relname FROM pg_class"
        " WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')"
        " AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid"
        " AND (deptype = 'e' OR (relkind = 'S' AND deptype IN ('a', 'i')))) ORDER BY relname"
    )
    mine = own_tables(connection)
    relations = [(str(kind), str(name)) for kind, name in connection.exec_driver_sql(query)]
    return Others(
        tuple((kind, name) for kind, name in relations if name not in mine),
        tuple(key for key in _foreign_keys(connection) if key.refers_to in mine and key.table not in mine),
        tuple(_views_over(connection, mine)),
        tuple(name for name in mine if name not in own(mine)),
    )


def _foreign_keys(connection: Connection) -> list[Key]:
    """The foreign keys to tables of the current schema; a table of another one is named with it."""
    query = (
        "SELECT conname, CASE WHEN a.relnamespace = b.relnamespace THEN a.relname"
        " ELSE a.oid::regclass::text END, b.relname FROM pg_constraint"
        " JOIN pg_class a ON a.oid = conrelid JOIN pg_class b ON b.oid = confrelid"
        " WHERE contype = 'f' AND b.relnamespace = current_schema()::regnamespace AND conparentid = 0"
        " ORDER BY 2, 1"
    )
    return [Key(*map(str, row)) for row in connection.exec_driver_sql(query)]


def _views_over(connection: Connection, tables: list[str]) -> list[tuple[str, str]]:
    """Kind and quoted name of each view, in any schema, that reads these tables; those that read others first."""
    query = (
        "WITH RECURSIVE over AS ("
        " SELECT ev_class, 1 AS depth FROM pg_rewrite JOIN pg_depend ON objid = pg_rewrite.oid"
        " JOIN pg_class ON pg_class.oid = refobjid WHERE classid = 'pg_rewrite'::regclass"
        " AND refclassid = 'pg_class'::regclass AND relname = ANY(%s)"
        " AND relnamespace = current_schema()::regnamespace AND ev_class <> refobjid"
        " UNION ALL SELECT pg_rewrite.ev_class, depth + 1 FROM over JOIN pg_depend ON refobjid = over.ev_class"
        " JOIN pg_rewrite ON objid = pg_rewrite.oid WHERE classid = 'pg_rewrite'::regclass"
        " AND refclassid = 'pg_class'::regclass AND pg_rewrite.ev_class <> refobjid)"
        " SELECT CASE relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END,"
        " quote_ident(nspname) || '.' || quote_ident(relname)"
        " FROM over JOIN pg_class ON pg_class.oid = ev_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE relkind IN ('v', 'm') GROUP BY 1, 2 ORDER BY max(depth) DESC, 2"
    )
    return [(str(kind), str(name)) for kind, name in connection.exec_driver_sql(query, (tables,))]


@dataclass(frozen=True)
class Dump:
    """What a dump holds: one schema, the one that MLflow uses."""

    schema: str
    rows: dict[str, int]
    bytes: int
    sha256: str
    position: dict[str, Any] | None


def dump(engine: Engine, programs: Programs, target: Path) -> Dump:
    """Write ``pg_dump -Fc`` of the database, and count its rows in the same snapshot.

    Args:
        engine: to the database.
        programs: from `find_programs`.
        target: the file to write.

    Raises:
        UserError: pg_dump failed; its own message is in it.
    """
    with engine.connect() as connection:
        # asked before the snapshot: what is written in between counts as changed, never as unchanged
        where = position(connection)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        snapshot = connection.exec_driver_sql("SELECT pg_export_snapshot()").scalar_one()
        schema = current_schema(connection)
        options = ["--format=custom", f"--schema={schema}", f"--snapshot={snapshot}", "--no-password"]
        options += [f'--exclude-table="{schema}"."{name}"' for _, name in others(connection).relations]
        argv = programs.argv("pg_dump", engine.url, *options)
        with (
            target.open("wb") as output,
            run(argv, engine.url, stdin=subprocess.DEVNULL, stdout=output) as job,
        ):
            rows = count_rows(connection)
            with progress("pg_dump", sum(rows.values()), "rows") as step, _Dumped(engine, rows) as dumped:
                while job.process.poll() is None:
                    if step.due():
                        step.at(dumped.rows(), f"{size(target.stat().st_size)} written")
                    time.sleep(0.05)
                step.at(step.total, f"{size(target.stat().st_size)} written")
            job.check()
    sync(target)
    return Dump(schema, rows, target.stat().st_size, sha256(target), where)


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
