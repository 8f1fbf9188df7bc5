"""PostgreSQL, as one side of the protocols in `database.dialect` and `database.language`."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import ARRAY, any_, bindparam, func, text
from sqlalchemy.exc import DBAPIError

from console import UserError, note
from database import catalog, sessions
from database.dumping import dump
from database.language import Around
from database.lock import Lock, advisory_lock
from database.programs import find_programs
from database.replacing import load
from disks import is_full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import URL, ColumnElement, Connection, Engine, Select, Table

    from database.others import Others

# What a set keeps of a database that has not changed since the last one.
_SAME = ("schema", "revision", "file", "bytes", "sha256", "rows", "position", "server_version", "identity")

# serialization_failure, deadlock_detected (PostgreSQL manual, appendix A)
_PASSING = frozenset({"40001", "40P01"})
# PostgreSQL writes what exceeds work_mem (64 kB is the least) to a file beside its tables (manual, section 19.4.1):
# a real write, without a row or a record in the log.
_SPILL = ("SET LOCAL work_mem = '64kB'", "SELECT count(*) FROM generate_series(1, 8000)")
_HERE = "(SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
_AROUND = f"""
    SELECT 'partition', '', relname, true FROM pg_class WHERE relispartition AND relnamespace = {_HERE}
    UNION ALL
    SELECT DISTINCT 'elsewhere', n.nspname, c.relname,
           has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_class p ON p.oid = k.confrelid
    WHERE k.contype = 'f' AND NOT c.relispartition AND p.relnamespace = {_HERE} AND n.oid <> {_HERE}
    UNION ALL
    SELECT 'deferred', '', conname, true FROM pg_constraint WHERE condeferrable
"""  # noqa: S608 (nothing of it comes from outside)


class PostgreSQLLanguage:
    """See `database.language.Language`."""

    one_writer: ClassVar[bool] = False
    enforces_keys: ClassVar[bool] = True
    beside_writers: ClassVar[str] = "CONCURRENTLY"

    def among(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """See `Language.among`: the parameter is one array."""
        return column == any_(bindparam(name, type_=ARRAY(column.type)))

    def parameter(self, values: list[Any]) -> list[Any]:
        """See `Language.parameter`."""
        return values

    def json_text(self, column: ColumnElement[Any], key: str) -> ColumnElement[Any]:
        """See `Language.json_text`: by a pattern, for text that is no JSON is an error to a cast."""
        return func.substring(column, '"' + key.replace(".", "[.]") + '": *"([^"]*)"')

    def locking(self, query: Select[Any], table: Table) -> Select[Any]:
        """See `Language.locking`."""
        return query.with_for_update(of=table)

    def begin_writing(self, connection: Connection, patience: int = 0) -> None:
        """See `Language.begin_writing`: the driver begins with the first statement."""
        if patience:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{patience}s'")

    @contextmanager
    def patience(self, connection: Connection, seconds: int) -> Iterator[None]:
        """See `Language.patience`."""
        connection.exec_driver_sql(f"SET lock_timeout = '{seconds}s'")
        try:
            yield
        finally:
            connection.exec_driver_sql("RESET lock_timeout")

    def passes(self, error: DBAPIError) -> bool:
        """See `Language.passes`."""
        return getattr(error.orig, "pgcode", None) in _PASSING

    def missing_right(self, connection: Connection, needed: Sequence[tuple[str, str]]) -> str | None:
        """See `Language.missing_right`."""
        # names as they are written in SQL: "Mixed case" needs its quotes
        query = text(
            "SELECT needed, name"
            " FROM unnest(CAST(:rights AS text[]), CAST(:names AS text[])) AS needs (needed, name)"
            " WHERE NOT has_table_privilege(quote_ident(name), needed) ORDER BY needed, name LIMIT 1"
        )
        rights, names = [right for right, _ in needed], [name for _, name in needed]
        missing = connection.execute(query, {"rights": rights, "names": names}).first()
        return f"{missing[0]} in {missing[1]}" if missing else None

    def around(self, connection: Connection) -> list[Around]:
        """See `Language.around`."""
        return [Around(*row) for row in connection.execute(text(_AROUND))]

    def about_rows(self, connection: Connection, tables: set[str]) -> dict[str, int]:
        """See `Language.about_rows`."""
        # reltuples is -1 before the first ANALYZE; the file's size is always known
        estimate = text(
            "SELECT name, greatest(reltuples, pg_relation_size(oid) / 200)"
            " FROM unnest(CAST(:names AS text[])) AS name JOIN pg_class ON oid = to_regclass(quote_ident(name))"
        )
        return {name: int(rows) for name, rows in connection.execute(estimate, {"names": sorted(tables)})}

    def indexes(self, connection: Connection, prefix: str) -> list[str]:
        """See `Language.indexes`."""
        query = (
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'i' AND left(c.relname, :n) = :prefix"
        )
        return list(connection.execute(text(query), {"n": len(prefix), "prefix": prefix}).scalars())

    def home(self, connection: Connection) -> dict[str, Any]:
        """See `Language.home`.

        The numbers of the cluster (one that was promoted has another timeline) and of the database, and the schema.
        """
        query = (
            "SELECT (SELECT system_identifier::text FROM pg_control_system()),"
            " (SELECT timeline_id FROM pg_control_checkpoint()),"
            " (SELECT oid::bigint FROM pg_database WHERE datname = current_database()), current_schema()"
        )
        system, timeline, database, schema = connection.exec_driver_sql(query).one()
        return {"system": system, "timeline": timeline, "database": database, "schema": schema}


@dataclass(frozen=True)
class PostgreSQL:
    """See `database.dialect.Dialect`."""

    engine: Engine
    kind: ClassVar[str] = "postgresql"
    language: ClassVar[PostgreSQLLanguage] = PostgreSQLLanguage()

    @staticmethod
    def file(url: URL) -> None:
        """See `Dialect.file`."""
        del url

    @classmethod
    def open(cls, url: URL, *, create: bool, foreign_keys: bool, lock_timeout: int, schema: str) -> Engine:
        """See `Dialect.open`."""
        del create, foreign_keys
        return sessions.open_sessions(url, lock_timeout, schema)

    def knock(self) -> None:
        """See `Dialect.knock`: that a session begins is the answer."""
        with self.engine.connect():
            pass

    @staticmethod
    def explain(refusal: str, url: URL) -> UserError:
        """See `Dialect.explain`."""
        return sessions.explain(refusal, url)

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

    def has_room(self) -> bool:
        """See `Dialect.has_room`."""
        try:
            with self.engine.begin() as connection:
                for statement in _SPILL:
                    connection.exec_driver_sql(statement)
        except DBAPIError as error:
            if is_full(error):
                return False
            raise
        return True

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
        self, stem: Path, last: Mapping[str, Any] | None, last_file: Path | None, pg_command: str | None
    ) -> dict[str, Any]:
        """See `Dialect.dump`: ``pg_dump -Fc`` of MLflow's tables, or a link to the last one if nothing was written."""
        target = stem.with_suffix(".dump")
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
