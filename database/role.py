"""``python -m database.role``: make sure that MLflow's own PostgreSQL role is there and owns its database.

Idempotent; run again after a rotation it sets the new password. The role is no superuser and may create nothing
beside its own database.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from console import UserError, note, user_errors

STARTING_UP = 60.0  # seconds; a server that has just been started refuses connections for a while


def ensure(
    host: str, port: int, database: str, role: str, *, owner: str, owner_password: str, password: str
) -> None:
    """Create the role, or set its password, and give it the database.

    Args:
        host: address of the server.
        port: its port.
        database: the database that the role shall own; made if it is missing.
        role: MLflow's role.
        owner: the superuser.
        owner_password: the superuser's password.
        password: the role's password.

    Raises:
        UserError: the server does not answer within a minute, or refuses the superuser.
    """
    import psycopg2
    from psycopg2 import sql

    connection = _connect(host, port, owner, owner_password)
    connection.autocommit = True
    name, base = sql.Identifier(role), sql.Identifier(database)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
            verb = "ALTER" if cursor.fetchone() else "CREATE"
            options = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD"
            cursor.execute(
                sql.SQL("{} ROLE {} {} {}").format(
                    sql.SQL(verb), name, sql.SQL(options), sql.Literal(password)
                )
            )
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
            if not cursor.fetchone():
                cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(base, name))
            cursor.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(base, name))
            # Nobody else may connect to it (PostgreSQL manual, 5.8 Privileges: PUBLIC has CONNECT by default).
            cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(base))
    except psycopg2.Error as error:
        raise UserError(f"cannot prepare the role '{role}': {str(error).strip()}") from None
    finally:
        connection.close()
    note(f"the role '{role}' owns the database '{database}'")


def _connect(host: str, port: int, owner: str, password: str):  # type: ignore[no-untyped-def] # noqa: ANN202
    import psycopg2

    deadline = time.monotonic() + STARTING_UP
    while True:
        try:
            return psycopg2.connect(
                host=host, port=port, user=owner, password=password, dbname="postgres", connect_timeout=5
            )
        except psycopg2.OperationalError as error:
            reason = str(error).strip()
            if "password" in reason or time.monotonic() > deadline:
                raise UserError(
                    f"PostgreSQL at {host}, port {port}, does not let its superuser in: {reason}",
                    "its password is set when the data is made; the secret's file must still be the same one",
                ) from None
            time.sleep(0.3)


def main() -> None:
    """Read the flags; passwords come from files."""
    parser = argparse.ArgumentParser(prog="python -m database.role", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=5432)
    parser.add_argument("--database", default="mlflow")
    parser.add_argument("--role", default="mlflow")
    parser.add_argument("--owner", default="postgres")
    parser.add_argument("--owner-password-file", type=Path, required=True)
    parser.add_argument("--password-file", type=Path, required=True)
    given = parser.parse_args()
    ensure(
        given.host,
        given.port,
        given.database,
        given.role,
        owner=given.owner,
        owner_password=given.owner_password_file.read_text().strip(),
        password=given.password_file.read_text().strip(),
    )


if __name__ == "__main__":
    with user_errors():
        main()
