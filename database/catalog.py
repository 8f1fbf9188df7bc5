"""PostgreSQL's catalogs: what is in a database, who uses it, and where its data stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from database.others import Key, Others
from database.revision import is_listed
from database.tables import AUTH_REVISION, REVISION, linked, own, revision_table

if TYPE_CHECKING:
    from sqlalchemy import Connection


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


def revision(connection: Connection, table: str = "") -> str | None:
    """Return the revision of MLflow's schema; None where there is none, or more than one.

    Args:
        connection: to the database.
        table: the one that has it; by default see `database.tables.revision_table`.
    """
    names = table_names(connection)
    table = table or revision_table(names)
    if table not in names:
        return None
    revisions = connection.exec_driver_sql(f"SELECT version_num FROM {table}").scalars().all()  # noqa: S608
    return str(revisions[0]) if len(revisions) == 1 else None


def own_tables(connection: Connection) -> list[str]:
    """Return the tables of MLflow's in the current schema; see `database.tables`."""
    names = table_names(connection)
    mine = own(names)
    if is_listed(revision(connection, REVISION), revision(connection, AUTH_REVISION)):
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
