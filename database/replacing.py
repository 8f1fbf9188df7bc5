"""PostgreSQL: MLflow's tables replaced by those of a dump, in one transaction; whatever lies beside them stays."""

from __future__ import annotations

import os
import re
import subprocess
import time
from typing import TYPE_CHECKING

from console import UserError, progress
from database.catalog import current_schema, other_sessions, others, own_tables
from database.programs import run
from database.sessions import NO_TIMEOUTS
from database.tables import AUTH, AUTH_REVISION, ROUTINES, has_auth
from files import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from database.others import Others
    from database.programs import Programs

LOCK_TIMEOUT = 15_000  # milliseconds to wait for a session that holds a table
_ENTRY = re.compile(rb"-- (?:Data for )?Name: (.*); Type: ([A-Z ]+); Schema: ")
_INDEX = re.compile(rb"CREATE (?:UNIQUE )?INDEX .*? ON (?:ONLY )?(\S+) ")
# What Debian's PostgreSQL 17 writes for columns that another server's pg_dump has no name for.
_FOREIGN = re.compile(rb"ALTER TABLE ONLY .* SET \(pg_attver=\d+\);\n")


def clear(connection: Connection, beside: Others, *, auth: bool) -> str:
    """Return SQL that drops MLflow's tables in the current schema, and the views that read them; nothing else goes.

    Without CASCADE: whatever else leans on them is an error of PostgreSQL's, and undoes all.

    Args:
        connection: to the database.
        beside: what `database.catalog.others` says of it.
        auth: whether the tables of basic auth go, too: they do when others come for them.
    """
    schema = current_schema(connection)
    spared = set() if auth else AUTH | {AUTH_REVISION}
    tables = [f'"{schema}"."{name}"' for name in own_tables(connection) if name not in spared]
    statements = [f"DROP {kind} IF EXISTS {name};" for kind, name in beside.views]
    statements += [f"DROP TABLE {', '.join(tables)};"] if tables else []
    statements += [f'DROP FUNCTION IF EXISTS "{schema}"."{name}";' for name in sorted(ROUTINES)]
    return "\n".join(statements) + "\n"


def views_of(engine: Engine, programs: Programs, beside: Others) -> bytes:
    """Return SQL that makes views again: their owners, grants and comments too (`pg_dump --table`)."""
    if not beside.views:
        return b""
    options = ["--no-password", *(f"--table={name}" for _, name in beside.views)]
    argv = programs.argv("pg_dump", engine.url, *options)
    with run(argv, engine.url, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as job:
        assert job.process.stdout is not None  # noqa: S101 - asked for with PIPE
        text = job.process.stdout.read()
        job.check()
    return bytes(text)


def _names_beside(connection: Connection, beside: Others) -> set[str]:
    """The names in the schema that stay taken: of others' relations, of their sequences, routines and types."""
    query = (
        "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'S'"
        " AND NOT EXISTS (SELECT FROM pg_depend JOIN pg_class t ON t.oid = refobjid WHERE objid = pg_class.oid"
        " AND deptype IN ('a', 'i') AND t.relname = ANY(%s))"
        " UNION SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace"
        " UNION SELECT typname FROM pg_type WHERE typnamespace = current_schema()::regnamespace"
        " AND typtype IN ('e', 'd')"
    )
    names = connection.exec_driver_sql(query, (own_tables(connection),)).scalars()
    return ({name for _, name in beside.relations} | {str(name) for name in names}) - ROUTINES


def _recount(rows: Mapping[str, int], schema: str) -> str:
    """Return SQL that raises an error unless every table has its number of rows."""
    checks = []
    for table, number in rows.items():
        name = f'"{schema}"."{table}"'
        checks.append(
            f"  IF (SELECT count(*) FROM {name}) <> {number} THEN"  # noqa: S608
            f" RAISE EXCEPTION 'table {table} does not have its {number} rows'; END IF;"
        )
    return "DO $$ BEGIN\n" + "\n".join(checks) + "\nEND $$;\n"


class Script:
    """A script of pg_restore on its way to psql, without what is not wanted here.

    Left out are the entries of what stands beside MLflow's tables here (dumps of older versions hold the whole
    schema), and what only the server that was dumped understands.

    Args:
        taken: names of the schema that belong to others.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {name.encode() for name in taken}
        self._leaving = self._undecided = False

    def passed(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what is wanted of a script, as bytes that need not end with a line."""
        rest, copying = b"", False
        for chunk in chunks:
            rest += chunk
            start = 0
            while True:
                if copying:
                    end = rest.find(b"\n\\.\n", start)  # of a table without rows: the line after COPY
                    if end < 0:
                        break
                    yield self._wanted(rest[start : end + 4])
                    start, copying = end + 4, False
                end = rest.find(b"\n", start)
                if end < 0:
                    break
                line = rest[start : end + 1]
                if line.startswith(b"COPY ") and line.endswith(b" FROM stdin;\n"):
                    yield self._wanted(line[:-1])
                    start, copying = end, True
                    continue
                self._look(line)
                yield b"" if _FOREIGN.fullmatch(line) else self._wanted(line)
                start = end + 1
            if copying:
                keep = max(start, len(rest) - 3)
                yield self._wanted(rest[start:keep])
                start = keep
            rest = rest[start:]
        yield rest

    def _wanted(self, part: bytes) -> bytes:
        return b"" if self._leaving else part

    def _look(self, line: bytes) -> None:
        if entry := _ENTRY.match(line):
            name, kind = entry[1], entry[2]
            self._undecided = kind == b"INDEX"  # its name does not say of which table
            if kind in {b"ACL", b"COMMENT"}:  # "TABLE pins", "COLUMN pins.id"
                name = name.partition(b" ")[2].partition(b".")[0]
            parts = {name, name.partition(b" ")[0], name.partition(b"(")[0]}
            self._leaving = bool(parts & self._taken) and not self._undecided
        elif self._undecided and (index := _INDEX.match(line)):
            self._undecided = False
            self._leaving = index[1].rpartition(b".")[2].strip(b'"') in self._taken


def load(
    engine: Engine,
    programs: Programs,
    source: Path,
    rows: Mapping[str, int],
    *,
    owners: bool,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Replace MLflow's tables in the database's schema by a dump's, in one transaction that also counts the rows.

    A crash, a full disk or an error at any point leaves the database as it was: only the last statement, sent
    after pg_restore has ended well, commits. Views over the tables are made again; whatever else is in the schema
    stays, and what the dump has of it is left out.

    Args:
        engine: to the database.
        programs: from `database.programs.find_programs`.
        source: what `database.dumping.dump` wrote; its hash has been checked.
        rows: the number of rows that each of its tables has.
        owners: keep owners and grants; right for the very database that was dumped.
        ready: called before the transaction is committed; what it raises undoes everything.

    Raises:
        UserError: the dump cannot be read or loaded, a session holds a table, or a table of others refers to
            MLflow's; nothing was changed.
    """
    with engine.connect() as connection:
        schema, beside = current_schema(connection), others(connection)
        beside.refuse_keys()
        taken = _names_beside(connection, beside)
        cleared = clear(connection, beside, auth=has_auth(rows))
    views = views_of(engine, programs, beside)
    gone = "".join(f"DROP {kind} IF EXISTS {name};\n" for kind, name in beside.views)  # a set's own
    expected = {table: number for table, number in rows.items() if table not in taken}
    keep = [] if owners else ["--no-owner", "--no-privileges"]
    read = programs.plain("pg_restore", "--file=-", f"--schema={schema}", *keep)
    write = programs.argv(
        "psql", engine.url, "-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-o", os.devnull, "-f", "-"
    )
    with (
        source.open("rb") as dumped,
        run(read, engine.url, stdin=dumped, stdout=subprocess.PIPE) as reader,
        run(write, engine.url, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as writer,
    ):
        script, target = reader.process.stdout, writer.process.stdin
        assert script is not None  # noqa: S101 - asked for with PIPE
        assert target is not None  # noqa: S101
        try:
            begin = (
                f"SET client_min_messages = warning;\nSET statement_timeout = 0;\n{NO_TIMEOUTS};\n"
                f"BEGIN;\nSET LOCAL lock_timeout = {LOCK_TIMEOUT};\n"
            )
            target.write((begin + cleared).encode())
            with progress("pg_restore", source.stat().st_size) as step:
                lines, total = 0, sum(rows.values())  # nearly every line of the script is a row
                for chunk in Script(taken).passed(iter(lambda: script.read(CHUNK), b"")):
                    target.write(chunk)
                    lines += chunk.count(b"\n")
                    # pg_restore reads on in the very file that is open here
                    step.at(os.lseek(dumped.fileno(), 0, os.SEEK_CUR), f"{min(lines, total)}/{total} rows")
                reader.check()
                target.write(f"\n{gone}".encode() + views)
                target.flush()  # psql has something to do meanwhile
                ready()
                target.write(f"\n{_recount(expected, schema)}COMMIT;\n".encode())
                target.close()
                while writer.process.poll() is None:
                    step.at(step.total, "building indexes and counting rows")
                    time.sleep(0.05)
        except BrokenPipeError:
            pass  # psql stopped at an error, and says which
        try:
            writer.check()
        except UserError as error:
            busy = "lock timeout" in str(error)
            with engine.connect() as connection:
                sessions = other_sessions(connection) if busy else []
            raise UserError(
                f"the restore failed and nothing was changed: {error.message}", *error.hints, *sessions
            ) from None
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
